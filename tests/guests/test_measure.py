# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measuring, as far as it goes without a KVM that can be trusted; the machine of tests/vm has one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from nestd.errors import NotSupported, Timeout, VerifyFailed
from nestd.guests.measure import measure
from nestd.guests.probe.exits import spread
from nestd.host.commands import Commands
from nestd.host.root import Root
from tests.support import loop


def _measure(top: Path, limit: float = 30.0) -> None:
    loop.run(measure(Root(str(top)), Commands(), limit=limit))


def test_no_device_is_kvm_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match=r"^kvm-unusable: /dev/kvm cannot be used: No such .*ENOENT"):
        _measure(tmp_path)


def test_a_device_that_is_not_kvm_is_refused_in_the_kernels_words(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").touch()
    with pytest.raises(NotSupported, match=re.escape("(ENOTTY). `nestctl diagnose` tells more")):
        _measure(tmp_path)


def test_a_guest_that_never_ends_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(Timeout, match=r"KVM did not finish .* within 0\.001 s: it hangs"):
        _measure(tmp_path, limit=0.001)


def test_a_python_that_an_upgrade_has_taken_away_is_named(tmp_path: Path) -> None:
    python = str(tmp_path / "python3.1")
    with pytest.raises(VerifyFailed, match=f"{re.escape(python)} is not installed.* restart nestd"):
        loop.run(measure(Root(str(tmp_path)), Commands(), python=python))


RAN = 'nestd-probe {"created": true} .\nnestd-probe {"ran": true} .\n'
LATE = 'nestd-probe {"failed": {"stage": "time", "errno": 0, "reason": 0, "detail": 0}} .\n'
BROKEN = 'nestd-probe {"failed": {"stage": "run", "errno": 5, "reason": 0, "detail": 0}} .\n'


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (LATE, Timeout, "KVM did not come back .* in time: the machine is very busy, or KVM hangs"),
        (RAN + LATE, Timeout, "KVM did not come back"),
        (BROKEN, NotSupported, r"^kvm-unusable: .*\(EIO\)"),
        (RAN + BROKEN, VerifyFailed, r"^The small guest ran, but was not measured to the end: .*\(EIO\)\.$"),
    ],
)
def test_kvm_that_ran_a_guest_is_not_called_unusable(
    tmp_path: Path, said: str, error: type[Exception], words: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat <<'END'\n{said}END\n")
    python.chmod(0o755)
    with pytest.raises(error, match=words):
        loop.run(measure(Root(str(tmp_path)), Commands(), python=str(python)))


def test_the_alarm_is_set_by_the_patience(tmp_path: Path) -> None:
    """The device is none, which is told while the alarm is set."""
    (tmp_path / "kvm").touch()
    script = (
        "import sys, signal; sys.path.insert(0, sys.argv[1]); import exits\n"
        "tell = lambda told: print(list(told), signal.getitimer(signal.ITIMER_REAL)[0])\n"
        "exits.measure(sys.argv[2], 0.8, 6000, tell)"
    )
    argv = (sys.executable, "-I", "-S", "-c", script, str(_FOLDER), str(tmp_path / "kvm"))
    told = loop.run(Commands().run(*argv)).out
    assert told.startswith("['failed'] ") and float(told.split()[1]) > 5000


def test_rounds_are_long_enough_to_count_and_end_in_time() -> None:
    asked: list[int] = []

    def exits(times: int) -> tuple[float, float]:
        asked.append(times)
        return times * 2.5e-6, times * 0.5e-6

    found = spread(exits, 0.01)
    assert asked[:7] == [8, 16, 32, 64, 128, 256, 512]
    assert set(asked[7:]) <= {512} and found["exits"] == 512 and found["rounds"] == len(asked) - 6
    assert found["median"] == pytest.approx(2000) and found["low"] == found["high"] == found["median"]


def test_a_round_that_takes_all_the_time_is_the_only_one() -> None:
    found = spread(lambda times: (times * 8.0, times * 7.0), 0.5)
    assert found == {"median": 1e9, "low": 1e9, "high": 1e9, "rounds": 1, "exits": 8}


def test_the_quartiles_are_those_of_the_rounds() -> None:
    rounds = iter([(0.01 + 8e-9 * number, 0.01) for number in (5, 1, 4, 2)] + [(60.0 + 8e-9 * 3, 60.0)])
    # The last one was interrupted in both halves, and takes the time of all others.
    found = spread(lambda _: next(rounds), 30.0)
    assert [round(found[name], 6) for name in ("low", "median")] == [2, 4]
    assert found["high"] == pytest.approx(5) and found["rounds"] == 5


def test_what_interrupts_the_rest_of_a_round_is_not_taken_off() -> None:
    """As on a machine under load: 10 ms with the exits, 2 ms without, others' 5 or 25 ms here and there."""
    rounds = iter([(0.010, 0.007), (0.010, 0.002), (0.015, 0.027), (0.010, 0.027), (60.0, 60.0)])
    found = spread(lambda _: next(rounds), 30.0)
    assert found["low"] == found["median"] == pytest.approx(1e6)


def test_there_is_no_time_below_nothing() -> None:
    found = spread(lambda _: (1.0, 6.0), 0.5)
    assert (found["low"], found["median"], found["high"]) == (0.0, 0.0, 0.0)


def test_the_program_needs_nothing_of_nestd() -> None:
    loaded = loop.run(
        Commands().run(
            sys.executable, "-I", "-S", "-X", "importtime", "-c",
            "import runpy, sys; sys.path.insert(0, sys.argv[1]); import exits", str(_FOLDER),
        )
    )  # fmt: skip
    assert loaded.code == 0
    assert not re.search(r"\b(nestd|typing|ctypes|subprocess|dataclasses|asyncio)\b", loaded.err)


_FOLDER = Path(__file__).resolve().parents[2] / "nestd/guests/probe"
