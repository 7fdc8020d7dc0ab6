# SPDX-License-Identifier: LGPL-2.1-or-later
"""A polkit that decides as it was told: the real interface on a private bus."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nestd import tasks
from nestd.bus.connection import Connection
from nestd.wire import message

NAME = "org.freedesktop.PolicyKit1"


class Mood(StrEnum):
    """What it does with a question."""

    ALLOW = "allow"
    DENY = "deny"
    CHALLENGE = "challenge"
    DISMISSED = "dismissed"
    HANG = "hang"
    DIE = "die"
    NONSENSE = "nonsense"
    BOTH = "both true"
    FAIL = "fail"


_ANSWERS: dict[Mood, list[Any]] = {
    Mood.ALLOW: [True, False, {}],
    Mood.DENY: [False, False, {}],
    Mood.CHALLENGE: [False, True, {}],
    Mood.DISMISSED: [False, False, {"polkit.dismissed": "true"}],
    Mood.BOTH: [True, True, {}],
}


@dataclass
class FakePolkit:
    """`questions` are the bodies of CheckAuthorization, `cancelled` the ids that were withdrawn."""

    connection: Connection
    mood: Mood
    questions: list[list[Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    asked: tasks.Event = field(default_factory=tasks.Event)
    withdrawn: tasks.Event = field(default_factory=tasks.Event)
    deaths: list[tasks.Task[None]] = field(default_factory=list)

    @classmethod
    async def start(cls, address: str, mood: Mood) -> FakePolkit:
        """Own the name."""
        fake = cls(await Connection.connect(address), mood)
        fake.connection.add_message_handler(fake._on_message)
        await fake.connection.request_name(NAME)
        return fake

    async def close(self) -> None:
        """Leave the bus."""
        await tasks.wait(self.deaths)
        await self.connection.close()

    def _on_message(self, received: message.Message) -> bool:
        header = received.header
        if header.interface != f"{NAME}.Authority":
            return False
        if header.member == "CancelCheckAuthorization":
            self.cancelled += received.values()
            self.withdrawn.set()
        elif header.member == "CheckAuthorization":
            assert header.signature == "(sa{sv})sa{ss}us"
            self.questions.append(received.values())
            self._decide(received)
            self.asked.set()
        return True

    def _decide(self, received: message.Message) -> None:
        serial, header = self.connection.next_serial(), received.header
        if self.mood is Mood.DIE:
            self.deaths.append(tasks.create_task(self.connection.close()))
        elif self.mood is Mood.NONSENSE:
            self.connection.send(message.reply(serial, header, "s", ["yes, of course"]))
        elif self.mood is Mood.FAIL:
            text = "Action is not registered"
            self.connection.send(message.error(serial, header, f"{NAME}.Error.Failed", text))
        elif self.mood is not Mood.HANG:
            self.connection.send(message.reply(serial, header, "(bba{ss})", [_ANSWERS[self.mood]]))
