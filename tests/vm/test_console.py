# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's console on a real terminal: it is talked to, left, taken away; and the terminal is as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.vm.machine import Machine
from tests.vm.test_launch import said
from tests.vm.test_spine import GUEST

_USER = Path(__file__).with_name("console_user.py")


def _uses(machine: Machine, how: str) -> list[dict[str, Any]]:
    answer = machine.run(["python3", f"/tmp/user/{_USER.name}", how], timeout=300)
    told: list[dict[str, Any]] = json.loads(answer.stdout)
    assert [each["same"] for each in told] == [True] * len(told), told
    return told


def test_it_is_for_one_at_a_time_and_gives_the_terminal_back(machine: Machine) -> None:
    machine.sh(f"nestctl launch demo --user alice --memory 128M {GUEST}", timeout=240)
    machine.push((_USER.name, _USER.read_bytes()), to="/tmp/user")
    said(machine, "guest# ")  # before its prompt the shell throws away what is typed

    # What was typed right before the escape key is heard, too: see console_user.py.
    left, again = _uses(machine, "escape")
    assert (left["code"], again["code"]) == (0, 0) and "Left the console of demo" in left["seen"]

    (ended,) = _uses(machine, "term")
    assert ended["code"] == 143, ended

    refused, left, again = _uses(machine, "busy")
    assert refused["code"] == 5 and "is in use by another" in refused["seen"], refused
    assert (left["code"], again["code"]) == (0, 0)

    (ended,) = _uses(machine, "kill")
    assert ended["code"] == 0 and "The guest closed the console of demo" in ended["seen"], ended
