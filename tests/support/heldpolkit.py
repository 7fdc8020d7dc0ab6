# SPDX-License-Identifier: LGPL-2.1-or-later
"""A polkit that answers when the test says so: the real interface, one question at a time."""

from __future__ import annotations

import pwd
from dataclasses import dataclass
from typing import Any

from tests.support.clients import DBUS, Client, Message, plain
from tests.support.polkitd import NAME
from tests.support.privatebus import PrivateBus

YES, NO, CHALLENGE = [True, False, {}], [False, False, {}], [False, True, {}]


@dataclass(frozen=True, slots=True)
class Question:
    """A call of CheckAuthorization, whose parts are as polkit's specification has them."""

    message: Message
    subject: list[Any]
    action: str
    details: dict[str, str]
    flags: int
    cancellation: str


class HeldPolkit:
    """Owns polkit's name, with polkitd's user, in a `with` statement; each question waits for `answer`."""

    def __init__(self, bus: PrivateBus) -> None:
        self._client = Client(bus.address, pwd.getpwnam("polkitd").pw_uid)
        how = {"destination": DBUS, "path": "/", "interface": DBUS}
        [got] = self._client.call("RequestName", "su", [NAME, 4], **how)
        assert got == 1

    def question(self) -> Question:
        """Wait until nestd asks."""
        message = self._client.incoming("CheckAuthorization")
        assert message.signature == "(sa{sv})sa{ss}us"
        subject, action, details, flags, cancellation = map(plain, message.body)
        return Question(message, subject, action, details, flags, cancellation)

    def answer(self, question: Question, answer: list[Any]) -> None:
        """Say YES, NO or CHALLENGE."""
        self._client.send_message(Message.new_method_return(question.message, "(bba{ss})", [answer]))

    def withdrawn(self) -> str:
        """Wait until nestd no longer wants to know; the question's cancellation id."""
        return str(self._client.incoming("CancelCheckAuthorization").body[0])

    def more(self) -> list[str]:
        """The methods that were called and not taken yet; what was sent before this is here."""
        self._client.owner_of(NAME)
        return self._client.calls_so_far()

    def __enter__(self) -> HeldPolkit:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
