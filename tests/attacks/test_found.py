# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the attacks and the fuzzers have found, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd import tasks
from nestd.errors import Failed
from nestd.host import holders
from nestd.wire import message
from nestd.wire.header import Flag
from tests.bus.fakebus import faking, stamped
from tests.guests.house import House, run
from tests.support import loop
from tests.support.clients import MANAGER, PATH


def test_a_machine_name_that_is_no_utf8() -> None:
    """test_parsers: a scope whose name has odd bytes was a UnicodeEncodeError."""
    assert holders.place_of("0::/machine-\udc80x.scope") == ("machine-?x.scope", "\ufffdx")


def test_a_console_that_is_gone() -> None:
    """test_interface: Kill, then OpenConsole at once, told an errno and a path of the host."""

    async def go(made: House) -> None:
        async with made.nestd() as nestd:
            await nestd.launch()
            (made.top / "run/nestd/guests/demo/console").unlink()
            with pytest.raises(Failed) as caught:
                await nestd.registry.open_console("demo")
            assert str(caught.value) == "The console of demo cannot be opened: No such file or directory."

    run(go)


def test_a_flood_does_not_pile_up(tmp_path: Path) -> None:
    """flood: each turn read 64 KiB and handled 64 messages; the rest stayed, and memory did not come back."""

    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            call = stamped(":1.66", message.call(5, ":1.0", PATH, MANAGER, "Nothing", flags=Flag(1)))
            chunk, chunks = call * 500, 60
            sent = handled = most = 0

            def handle(_: message.Message) -> bool:
                nonlocal handled, most
                handled += 1
                most = max(most, sent - handled)
                return True

            def flood() -> None:
                nonlocal sent
                for _ in range(chunks):
                    fake.raw(chunk)
                    sent += 500

            connection.add_message_handler(handle)
            async with tasks.timeout(60):
                await tasks.to_thread(flood)
                while handled < 500 * chunks:  # what is waited for has no event of its own
                    await tasks.sleep(0)
            # The inbox, a read or two, and what the socket itself holds.
            assert most < 500 * chunks // 2

    loop.run(go())
