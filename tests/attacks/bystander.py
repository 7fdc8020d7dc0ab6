# SPDX-License-Identifier: LGPL-2.1-or-later
"""Another client, who asks for the status while an attack is under way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from tests.support.clients import Client
from tests.support.daemon import TOP
from tests.support.privatebus import PrivateBus

ANSWER = 5.0  # seconds that one of his calls may take
# dbus-broker queues some 86,000 calls of a user who floods, and hands out 16 of them for each look that it
# takes at the senders: how long those before his take is up to the bus, and to the processors.
ANSWER_IN_FLOOD = 20.0
_PAUSE = 0.01  # seconds from one answer to the next call
_ATTACK = 120.0  # seconds that an attack may take


@dataclass(frozen=True, slots=True)
class Seen:
    """What the attacker was told (attacker.py), and the seconds that each of the bystander's calls took."""

    told: dict[str, Any]
    took: list[float]


def ask(bystander: Client, limit: float = ANSWER) -> float:
    """Ask once; the seconds until the answer. TimeoutError: they are more than `limit`."""
    begin = time.perf_counter()
    assert bystander.reply(bystander.send("GetStatus"), limit)
    took = time.perf_counter() - begin
    time.sleep(_PAUSE)
    return took


def attacked(bus: PrivateBus, bystander: Client, name: str, seconds: float, limit: float = ANSWER) -> Seen:
    """Have somebody attack once, a flood for so long, and ask all the while; `limit` is as for `ask`."""
    argv = [sys.executable, "-m", "tests.attacks.attacker", bus.address, name, str(seconds)]
    end = time.monotonic() + _ATTACK
    took = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=TOP, text=True) as attacker:
        try:
            while attacker.poll() is None and time.monotonic() < end:
                took.append(ask(bystander, limit))
        finally:
            if attacker.poll() is None:
                attacker.kill()
        told, _ = attacker.communicate()
    assert attacker.returncode == 0, f"the attack itself failed: {attacker.returncode}"
    return Seen(json.loads(told), took)
