# SPDX-License-Identifier: LGPL-2.1-or-later
"""English, German and Russian: whole, up to date, and shown by the real polkit to who speaks them."""

from __future__ import annotations

import gettext
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nestd.bus import questions
from tests.packaging import house

PO = house.TREE / "data/po"
LANGUAGES = ("de", "ru")
MERGED = ("data/org.nestd1.policy", "data/org.nestd1.nestd.metainfo.xml")
LANG = "{http://www.w3.org/XML/1998/namespace}lang"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogues, as the packages bring them."""
    folder = tmp_path_factory.mktemp("locale")
    done = house.run(house.TREE / "packaging/translate", "--into", folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_what_is_committed_is_what_gettext_makes(tree: Path, tmp_path: Path) -> None:
    """Who changes a text runs packaging/translate; it fails where one is not translated."""
    copy = house.copy(tree, tmp_path / "tree")
    done = house.run(copy / "packaging/translate")
    assert (done.returncode, done.stderr) == (0, ""), "run packaging/translate, translate what it names"
    for path in (*MERGED, *(f"data/po/{x.name}" for x in PO.iterdir())):
        assert (copy / path).read_text() == (tree / path).read_text(), f"{path}: run packaging/translate"


def test_the_languages_are_these() -> None:
    listed = [line for line in (PO / "LINGUAS").read_text().splitlines() if not line.startswith("#")]
    assert sorted(listed) == sorted(LANGUAGES) == sorted(x.stem for x in PO.glob("*.po"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_message_is_missing_fuzzy_or_obsolete(language: str) -> None:
    for kind in ("untranslated", "only-fuzzy", "only-obsolete"):
        assert house.run("msgattrib", f"--{kind}", PO / f"{language}.po").stdout == "", kind
    done = house.run("msgfmt", "--check-format", "--check-domain", "-o", "/dev/null", PO / f"{language}.po")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_put_in_is_put_in_everywhere(language: str, compiled: Path) -> None:
    """$(guest) and its like are polkit's, and no format that msgfmt would know."""
    catalogue = gettext.translation("nestd", compiled, [language])
    pot = (PO / "nestd.pot").read_text().split("\n\n", 1)[1]
    texts = ["".join(re.findall(r'"(.*)"', one)).replace('\\"', '"') for one in pot.split("msgid ")[1:]]
    assert len(texts) > 12
    for text in texts:
        translated = catalogue.gettext(text)
        assert translated != text
        assert sorted(re.findall(r"\$\(\w+\)", translated)) == sorted(re.findall(r"\$\(\w+\)", text)), text
        assert translated.endswith(".") == text.endswith("."), text


def test_every_question_of_the_code_is_in_the_catalogue(compiled: Path) -> None:
    catalogue = gettext.translation("nestd", compiled, ["de"])
    found = [table for name, table in vars(questions).items() if name.isupper()]
    asked = []
    while found:
        match found.pop():
            case str(text):
                # Beside the questions, the words for polkit's rules.
                asked += [text] * text.startswith("Authentication ")
            case Mapping() as table:
                found += table.values()
            case tuple(each):
                found += each
            case other:
                pytest.fail(f"what is {other!r}?")
    assert len(asked) >= 12
    for question in asked:
        assert catalogue.gettext(question) != question


def test_every_action_speaks_every_language() -> None:
    for action in ElementTree.parse(house.TREE / "data/org.nestd1.policy").iter("action"):
        for tag in ("description", "message"):
            spoken = [element.get(LANG, "en") for element in action.findall(tag)]
            assert sorted(spoken) == ["de", "en", "ru"], (action.get("id"), tag)
            # polkit takes the one without a language where there is no other.
            assert action.findtext(tag) == action.findall(tag)[0].text and spoken[0] == "en"


def test_a_text_that_nobody_has_translated_is_named(tree: Path, tmp_path: Path) -> None:
    copy = house.copy(tree, tmp_path / "tree")
    policy = copy / "data/org.nestd1.policy"
    policy.write_text(policy.read_text().replace("running kernel<", "very kernel that runs<", 1))
    done = house.run(copy / "packaging/translate")
    assert done.returncode == 1
    for language in LANGUAGES:
        assert f"data/po/{language}.po lacks:" in done.stderr
    assert done.stderr.count("in the very kernel that runs") == len(LANGUAGES)
    # Until then those who speak it are asked in English.
    assert "very kernel that runs" in policy.read_text()


def test_appstream_has_nothing_to_say() -> None:
    done = house.run("appstreamcli", "validate", "--no-net", "--pedantic", house.TREE / MERGED[1])
    assert done.returncode == 0 and "Validation was successful" in done.stdout, done.stdout
    metainfo = ElementTree.parse(house.TREE / MERGED[1])
    assert metainfo.findtext("id") == Path(MERGED[1]).name.removesuffix(".metainfo.xml")
    assert metainfo.findtext("launchable") == "nestd.service"


def test_translate_says_what_it_takes() -> None:
    translate = house.TREE / "packaging/translate"
    assert "--into FOLDER" in house.run(translate, "--help").stdout
    assert house.run(translate, "--frobnicate").returncode == 2
    assert shutil.which("msgfmt")
