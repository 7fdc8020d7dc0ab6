# SPDX-License-Identifier: LGPL-2.1-or-later
"""The version is in nestd/__init__.py, and what has to repeat it says the same; so do address and license."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree

import pytest

from nestd import __version__
from tests.packaging import house

PACKAGING = house.TREE / "packaging"
SPEC = (PACKAGING / "rpm/nestd.spec").read_text()
PKGBUILD = (PACKAGING / "arch/PKGBUILD").read_text()
CHANGELOG = (PACKAGING / "debian/changelog").read_text()
NEWS = (house.TREE / "NEWS.md").read_text()
METAINFO = ElementTree.parse(house.TREE / "data/org.nestd1.nestd.metainfo.xml")


def first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.M)
    assert found, pattern
    return found[1]


def release() -> ElementTree.Element:
    """The newest."""
    found = METAINFO.find("releases/release")
    assert found is not None
    return found


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(first(r"\Anestd \((.*?)\)", CHANGELOG), id="debian/changelog"),
        pytest.param(first(r"^Version: +(\S+)$", SPEC), id="nestd.spec"),
        pytest.param(first(r"^%changelog\n\*.* - (\S+)-1$", SPEC), id="the spec's changelog"),
        pytest.param(first(r"^pkgver=(\S+)$", PKGBUILD), id="PKGBUILD"),
        pytest.param(first(r"^## (\S+)", NEWS), id="NEWS.md"),
        pytest.param(release().get("version"), id="metainfo"),
    ],
)
def test_it_is_the_same_everywhere(version: str) -> None:
    assert version == __version__


def test_the_date_is_the_same_everywhere() -> None:
    """It is the time of every file in the packages."""
    date = parsedate_to_datetime(first(r"^ -- .*>  (.*)$", CHANGELOG))
    assert first(r"^%changelog\n\* (\w+ \w+ \d+ \d+) ", SPEC) == date.strftime("%a %b %d %Y")
    assert release().get("date") == date.strftime("%Y-%m-%d")


def test_address_license_and_maintainer_are_the_same_everywhere() -> None:
    url = METAINFO.findtext("url", "")
    assert url == first(r"^URL: +(\S+)$", SPEC) == first(r"^url='(.*)'$", PKGBUILD)
    license_ = METAINFO.findtext("project_license", "")
    assert license_ == first(r"^License: +(\S+)$", SPEC) == first(r"^license=\('(.*)'\)$", PKGBUILD)
    assert f'license = {{ text = "{license_}" }}' in (house.TREE / "pyproject.toml").read_text()
    maintainer = first(r"^ -- (.*>)  ", CHANGELOG)
    assert (
        maintainer
        == first(r"^# Maintainer: (.*)$", PKGBUILD)
        == first(r"^%changelog\n\*.* \d+ (The .*) -", SPEC)
    )
    assert f"\nMaintainer: {maintainer}\n" in (PACKAGING / "debian/control").read_text()


def test_each_says_what_nestd_is_in_the_same_words() -> None:
    summary = first(r"^Summary: +(.*)$", SPEC)
    assert summary == first(r"^pkgdesc='(.*)'$", PKGBUILD)
    debian = (PACKAGING / "debian/control").read_text()
    description = debian.partition("\nDescription: ")[2].split("\n", 1)[1]
    told = SPEC.partition("\n%description\n")[2].partition("\n\n%prep")[0]
    assert re.sub(r"^ \.?", "", description.rstrip(), flags=re.M) == told
