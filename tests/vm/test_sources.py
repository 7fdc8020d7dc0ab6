# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which of a host's package sources are Debian's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import sources
from tests.vm.problem import BuildError
from tests.vm.sources import Source


def _host(apt: Path, **files: str) -> Path:
    (apt / "sources.list.d").mkdir(parents=True)
    for name, text in files.items():
        path = apt / "sources.list" if name == "main" else apt / "sources.list.d" / name.replace("_", ".")
        path.write_text(text)
    return apt


def test_one_line_style() -> None:
    text = (
        "# deb http://mirror.example/debian sid main\n"
        "deb http://mirror.example/debian/ bookworm main non-free-firmware  # ours\n"
        "deb-src http://mirror.example/debian/ bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/other bookworm contrib main\n"
    )
    assert list(sources.parse_one_line(text)) == [
        Source("http://mirror.example/debian/", "bookworm", ""),
        Source("http://mirror.example/other", "bookworm", "/k.gpg"),
    ]


def test_deb822_style() -> None:
    text = (
        "# a comment\nTypes: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm\n"
        " bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n"
        "Types: deb\nEnabled: no\nURIs: http://mirror.example/off\nSuites: bookworm\nComponents: main\n"
    )
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert list(sources.parse_deb822(text)) == [
        Source("http://mirror.example/debian", "bookworm", key),
        Source("http://mirror.example/debian", "bookworm-updates", key),
    ]


def test_third_parties_are_left_out(tmp_path: Path) -> None:
    apt = _host(
        tmp_path / "apt",
        main="deb http://mirror.example/debian bookworm main\ndeb cdrom:[disc]/ bookworm main\n",
        a_list="deb [signed-by=/usr/share/keyrings/vendor.gpg] http://vendor.example/apt bookworm main\n",
        b_list="deb http://vendor.example/docker bookworm stable\n",
        c_list="deb http://vendor.example/sdk cloud-sdk-bookworm main\n",
        d_sources=(
            "Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n"
        ),
    )
    assert [source.uri for source in sources.of_host(apt)] == [
        "http://mirror.example/debian",
        "http://mirror.example/security",
    ]


def test_another_release_is_on_the_same_mirror(tmp_path: Path) -> None:
    main = (
        "deb http://mirror.example/debian bookworm main\n"
        "deb http://mirror.example/debian bookworm-updates main\n"
        "deb http://mirror.example/security bookworm-security main\n"
    )
    found = sources.of_host(_host(tmp_path / "apt", main=main), sources.TRIXIE)
    assert [source.suite for source in found] == ["trixie", "trixie-updates", "trixie-security"]


def test_a_host_that_names_the_other_release_is_believed(tmp_path: Path) -> None:
    apt = _host(
        tmp_path / "apt",
        main="deb http://mirror.example/debian bookworm main\n",
        a_list="deb http://other.example/debian trixie main\n",
    )
    (found,) = sources.of_host(apt, sources.TRIXIE)
    assert (found.uri, found.suite) == ("http://other.example/debian", "trixie")


def test_a_host_without_debian_is_told_what_to_do(tmp_path: Path) -> None:
    apt = _host(tmp_path / "apt", main="deb http://mirror.example/ubuntu noble main\n")
    with pytest.raises(BuildError, match="Add a line"):
        sources.of_host(apt)
