# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the real polkit asks people in their language: by the policy's xml:lang, and by nestd's catalogue."""

from __future__ import annotations

import gettext
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nestd.bus import questions
from tests.packaging import house
from tests.support.clients import ALICE, ROOT, Client, Variant
from tests.support.polkitd import ACTIONS, AUTHORITY, INTERFACE, LOCALES, NAME, Agent, Polkitd, question_of
from tests.support.privatebus import PrivateBus

pytestmark = pytest.mark.bus

LANG = "{http://www.w3.org/XML/1998/namespace}lang"


@pytest.fixture(scope="module")
def catalogues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("locale")
    done = house.run(house.TREE / "packaging/translate", "--into", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    with PrivateBus() as bus:
        yield bus


def asked(bus: PrivateBus, locale: str, action: str, details: dict[str, str]) -> str:
    """What the agent of somebody who calls nestd is to show, when nestd asks polkit."""
    with (
        Client(bus.address, ROOT) as nestd,
        Client(bus.address, ALICE) as alice,
        Agent(bus, ALICE, locale=locale) as agent,
    ):
        subject = ["system-bus-name", {"name": Variant("s", alice.unique_name)}]
        call = nestd.send(
            "CheckAuthorization",
            "(sa{sv})sa{ss}us",
            [subject, action, details, 1, ""],
            destination=NAME,
            path=AUTHORITY,
            interface=INTERFACE,
        )
        question = agent.asked()
        agent.dismiss(question)
        nestd.reply(call)
        return str(question_of(question)["message"])


@pytest.mark.parametrize("locale", ["C.UTF-8", "fr_FR.UTF-8", *LOCALES])
def test_each_is_asked_in_their_language(bus: PrivateBus, catalogues: Path, locale: str) -> None:
    language = locale[:2] if locale in LOCALES else "en"
    [action] = [x for x in ElementTree.parse(ACTIONS).iter("action") if x.get("id") == "org.nestd1.launch"]
    [message] = [x.text or "" for x in action.findall("message") if x.get(LANG, "en") == language]
    question = questions.about_guest("Kill", "demo")
    translated = question["polkit.message"]
    if language != "en":
        translated = gettext.translation("nestd", catalogues, [language]).gettext(translated)
        assert translated != question["polkit.message"]
    with Polkitd(bus, catalogues=catalogues):
        said = asked(bus, locale, "org.nestd1.launch", {"guest": "demo"})
        assert said == message.replace("$(guest)", "demo")
        said = asked(bus, locale, "org.nestd1.manage-guests", question)
        assert said == translated.replace("$(guest)", "demo")
