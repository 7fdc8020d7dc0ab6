# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guard, against a polkit of every mood. Who asks is a user other than root, unless it says root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nestd import errors, tasks
from nestd.bus.connection import Connection
from nestd.bus.polkit import Authority
from nestd.wire.library import Variant
from tests.bus.fakepolkit import FakePolkit, Mood
from tests.support import loop
from tests.support.privatebus import PrivateBus

_ACTION = "org.nestd1.launch"
_NOBODY = 65534
_CLIENT = """
import os, sys
os.setgid(65534); os.setuid(65534)
from tests.bus.rawclient import RawClient
client = RawClient(sys.argv[1])
print(client.unique_name, flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="becomes another user: needs root")


@contextmanager
def _stranger(bus: PrivateBus) -> Iterator[str]:
    """The unique name of a client with the uid of nobody."""
    with subprocess.Popen(
        [sys.executable, "-c", _CLIENT, bus.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


async def _refusal(authority: Authority, sender: str, *, interactive: bool = False) -> errors.BusError:
    with pytest.raises(errors.BusError) as caught:
        await authority.check(sender, _ACTION, {"guest": "demo"}, interactive)
    return caught.value


@pytest.mark.parametrize(
    ("mood", "error"),
    [
        (Mood.DENY, errors.AccessDenied),
        (Mood.CHALLENGE, errors.InteractiveAuthorizationRequired),
        (Mood.DISMISSED, errors.AccessDenied),
        (Mood.DIE, errors.AccessDenied),
        (Mood.NONSENSE, errors.AccessDenied),
        (Mood.FAIL, errors.AccessDenied),
        (Mood.HANG, errors.Timeout),
    ],
)
def test_every_answer_but_yes_is_no(bus: PrivateBus, mood: Mood, error: type[errors.BusError]) -> None:
    async def go(sender: str) -> None:
        polkit = await FakePolkit.start(bus.address, mood)
        connection = await Connection.connect(bus.address)
        authority = Authority(connection, seconds=0.2 if mood is Mood.HANG else 20)
        assert type(await _refusal(authority, sender)) is error
        await connection.close()
        await polkit.close()

    with _stranger(bus) as sender:
        loop.run(go(sender))


@pytest.mark.parametrize("mood", [Mood.ALLOW, Mood.BOTH])
def test_yes(bus: PrivateBus, mood: Mood) -> None:
    async def go(sender: str) -> None:
        polkit = await FakePolkit.start(bus.address, mood)
        connection = await Connection.connect(bus.address)
        authority = Authority(connection)
        await authority.check(sender, _ACTION, {"guest": "demo"}, False)
        await authority.check(sender, _ACTION, {}, True)
        subject = ["system-bus-name", {"name": Variant("s", sender)}]
        first, second = polkit.questions
        assert first[:4] == [subject, _ACTION, {"guest": "demo"}, 0]
        assert second[:4] == [subject, _ACTION, {}, 1]
        assert first[4] != second[4]
        assert polkit.cancelled == []
        assert await authority.uid_of(sender) == _NOBODY
        await connection.close()
        await polkit.close()

    with _stranger(bus) as sender:
        loop.run(go(sender))


@pytest.mark.parametrize("interactive", [False, True])
def test_a_question_is_withdrawn_when_time_is_up(bus: PrivateBus, interactive: bool) -> None:
    async def go(sender: str) -> None:
        polkit = await FakePolkit.start(bus.address, Mood.HANG)
        connection = await Connection.connect(bus.address)
        limits = (20.0, 0.2) if interactive else (0.2, 20.0)
        authority = Authority(connection, seconds=limits[0], seconds_interactive=limits[1])
        assert isinstance(await _refusal(authority, sender, interactive=interactive), errors.Timeout)
        async with tasks.timeout(20):
            await polkit.withdrawn.wait()
        assert polkit.cancelled == [polkit.questions[0][4]]
        await connection.close()
        await polkit.close()

    with _stranger(bus) as sender:
        loop.run(go(sender))


def test_a_question_is_withdrawn_when_the_caller_leaves(bus: PrivateBus) -> None:
    async def go(sender: str) -> None:
        polkit = await FakePolkit.start(bus.address, Mood.HANG)
        connection = await Connection.connect(bus.address)
        check = tasks.create_task(Authority(connection).check(sender, _ACTION, {}, True))
        async with tasks.timeout(20):
            await polkit.asked.wait()
            check.cancel()
            await tasks.wait([check])
            await polkit.withdrawn.wait()
        assert check.cancelled()
        assert polkit.cancelled == [polkit.questions[0][4]]
        await connection.close()
        await polkit.close()

    with _stranger(bus) as sender:
        loop.run(go(sender))


def test_without_polkit_only_root_passes(bus: PrivateBus) -> None:
    async def go(sender: str) -> None:
        connection = await Connection.connect(bus.address)
        authority = Authority(connection)
        refusal = await _refusal(authority, sender)
        assert isinstance(refusal, errors.AccessDenied)
        assert "polkit" in str(refusal)
        assert "root" in str(refusal)
        await authority.check(connection.unique_name, _ACTION, {}, False)
        assert isinstance(await _refusal(authority, ":1.999"), errors.AccessDenied)
        await connection.close()

    with _stranger(bus) as sender:
        loop.run(go(sender))


def test_root_is_not_even_asked_about(bus: PrivateBus) -> None:
    async def go() -> None:
        polkit = await FakePolkit.start(bus.address, Mood.DENY)
        connection = await Connection.connect(bus.address)
        await Authority(connection).check(connection.unique_name, _ACTION, {}, False)
        assert polkit.questions == []
        await connection.close()
        await polkit.close()

    loop.run(go())
