# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files that tell a fleet's tools: when they are written, that they are whole, and when they go."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from nestd import tasks
from nestd.fleet import Fleet
from nestd.guestmodel import GuestState
from nestd.host.configuration import Settings
from nestd.host.root import Root
from nestd.model import DriverState, Extension, Nesting, Obstacle, Policy
from nestd.text import metrics
from tests.support.loop import run
from tests.text.test_metrics import seen

PROM, FEATURES = "/var/lib/prometheus/node-exporter/nestd.prom", "/etc/kubernetes/features.d/nestd"
LIMIT = 30.0
PROMTOOL = Path(__file__).parents[1] / ".venv/bin/promtool"  # tests/setup takes it out of Debian's package


class Machine:
    """Somewhere to write to, and what is to be told."""

    def __init__(self, top: Path) -> None:
        self.top = top
        for path in (PROM, FEATURES):
            self.path(path).parent.mkdir(parents=True)
        self.seen = seen()
        self.looks = 0
        self.fleet = Fleet(Root(str(top)), self._look)

    def _look(self) -> metrics.Seen:
        self.looks += 1
        return self.seen

    def path(self, absolute: str) -> Path:
        return self.top / absolute[1:]

    def text(self, absolute: str) -> str:
        path = self.path(absolute)
        return path.read_text() if path.exists() else ""

    async def until(self, absolute: str, text: str) -> None:
        end = time.monotonic() + LIMIT
        while self.text(absolute) != text:
            assert time.monotonic() < end, self.text(absolute)
            await tasks.sleep(0.01)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_both_are_written_follow_and_go(machine: Machine) -> None:
    async def main() -> None:
        machine.fleet.configure(Settings(prometheus=PROM, features=FEATURES))
        await machine.until(PROM, metrics.prometheus(machine.seen))
        await machine.until(FEATURES, metrics.features(machine.seen))
        assert stat.S_IMODE(machine.path(PROM).stat().st_mode) == 0o644
        machine.seen = seen(drift=True)
        machine.fleet.told()
        await machine.until(PROM, metrics.prometheus(machine.seen))
        await machine.until(FEATURES, metrics.features(machine.seen))
        await machine.fleet.close()
        assert [*machine.path(PROM).parent.iterdir(), *machine.path(FEATURES).parent.iterdir()] == []

    run(main())


def test_what_comes_together_is_written_once(machine: Machine) -> None:
    async def main() -> None:
        machine.fleet.configure(Settings(prometheus=PROM))
        for _ in range(100):
            machine.fleet.told()
        await machine.until(PROM, metrics.prometheus(machine.seen))
        assert machine.looks == 1
        await machine.fleet.close()

    run(main())


def test_the_same_is_not_written_again(machine: Machine) -> None:
    async def main() -> None:
        machine.fleet.configure(Settings(prometheus=PROM))
        await machine.until(PROM, metrics.prometheus(machine.seen))
        before = machine.path(PROM).stat()
        machine.fleet.configure(Settings(prometheus=PROM, features=FEATURES))
        await machine.until(FEATURES, metrics.features(machine.seen))
        after = machine.path(PROM).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        await machine.fleet.close()

    run(main())


def test_what_is_no_longer_wanted_goes(machine: Machine) -> None:
    other = PROM.replace("nestd", "other")

    async def main() -> None:
        machine.fleet.configure(Settings(prometheus=PROM, features=FEATURES))
        await machine.until(FEATURES, metrics.features(machine.seen))
        machine.fleet.configure(Settings(prometheus=other))
        await machine.until(other, metrics.prometheus(machine.seen))
        assert not machine.path(PROM).exists() and not machine.path(FEATURES).exists()
        await machine.fleet.close()
        assert not machine.path(other).exists()

    run(main())


def test_a_missing_folder_is_said_once_and_the_other_is_written(
    machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = machine.path(PROM).parent
    folder.rmdir()

    async def main() -> None:
        machine.fleet.configure(Settings(prometheus=PROM, features=FEATURES))
        await machine.until(FEATURES, metrics.features(machine.seen))
        machine.seen = seen(drift=True)
        machine.fleet.told()
        await machine.until(FEATURES, metrics.features(machine.seen))
        folder.mkdir()
        machine.fleet.told()
        await machine.until(PROM, metrics.prometheus(machine.seen))
        await machine.fleet.close()

    run(main())
    said = capfd.readouterr().err
    assert said.count(f"{PROM} cannot be written") == 1
    assert "No such file or directory" in said and "nestd.conf(5)" in said


def test_a_folder_of_somebody_else_is_written_to_and_his_link_is_not_followed(
    machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    """Debian's /var/lib/prometheus belongs to the user prometheus."""
    victim = machine.top / "victim"
    victim.write_text("mine")
    folder = machine.path(PROM).parent
    os.chown(folder.parent, 65534, 65534)
    os.chown(folder, 65534, 65534)
    # What he may have laid there: in place of the file, and of the one that it is renamed from.
    machine.path(PROM).symlink_to(victim)
    (folder / ".nestd.prom.nestd-new").symlink_to(victim)

    async def main() -> None:
        machine.fleet.configure(Settings(prometheus=PROM, features=FEATURES))
        await machine.until(FEATURES, metrics.features(machine.seen))
        machine.path(PROM).unlink()
        machine.fleet.told()
        await machine.until(PROM, metrics.prometheus(machine.seen))
        await machine.fleet.close()

    run(main())
    assert victim.read_text() == "mine"
    assert "a symbolic link, which is not followed" in capfd.readouterr().err


def test_a_folder_that_is_a_link_is_not_followed(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    elsewhere = machine.top / "elsewhere"
    elsewhere.mkdir()
    machine.path(PROM).parent.rmdir()
    machine.path(PROM).parent.symlink_to(elsewhere)

    async def main() -> None:
        machine.fleet.configure(Settings(prometheus=PROM, features=FEATURES))
        await machine.until(FEATURES, metrics.features(machine.seen))
        await machine.fleet.close()

    run(main())
    assert list(elsewhere.iterdir()) == []
    assert f"{PROM} cannot be written" in capfd.readouterr().err


def promtool(path: Path) -> tuple[int, str]:
    """What Prometheus's own tool says of a textfile: 0 and nothing; 3 for bad style; 1 for no metric."""
    with path.open() as text:
        done = subprocess.run(
            [PROMTOOL, "check", "metrics"],
            stdin=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LIMIT,
        )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "state",
    [
        seen(GuestState.RUNNING, GuestState.STOPPING, GuestState.STARTING),
        seen(nested=Nesting.OFF, nested_at_boot=Nesting.ON, reboot_required=True, drift=True, pending=True),
        seen(
            extension=Extension.NONE,
            driver="",
            driver_state=DriverState.MISSING,
            nested=Nesting.UNSUPPORTED,
            obstacle=Obstacle.NO_EXTENSION,
            policy=Policy.UNMANAGED,
        ),
        seen(driver='a"b\\c\nd', virtualization="\udcff{}#,="),
    ],
    ids=["ordinary", "everything", "nothing", "strange"],
)
def test_promtool_has_nothing_to_say(machine: Machine, state: metrics.Seen) -> None:
    machine.seen = state

    async def main() -> None:
        machine.fleet.configure(Settings(prometheus=PROM))
        await machine.until(PROM, metrics.prometheus(state))
        assert promtool(machine.path(PROM)) == (0, "")
        await machine.fleet.close()

    run(main())


@pytest.mark.parametrize(
    ("ours", "broken", "code", "said"),
    [
        ("# HELP nestd_drift The", "# The", 3, "nestd_drift no help text"),
        ("# TYPE nestd_nested gauge", "# TYPE nestd_nested counter", 3, 'should have "_total" suffix'),
        ("nestd_nested 1", "nestd_nested on", 1, "expected float as value"),
        ('{policy="on"}', '{policy="on}', 1, "text format parsing error"),
    ],
)
def test_promtool_would_say_it(tmp_path: Path, ours: str, broken: str, code: int, said: str) -> None:
    text = metrics.prometheus(seen())
    path = tmp_path / "nestd.prom"
    assert ours in text
    path.write_text(text.replace(ours, broken, 1))
    ended, words = promtool(path)
    assert ended == code and said in words, words
