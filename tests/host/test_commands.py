# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nestd import tasks
from nestd.errors import ToolFailed, ToolMissing
from nestd.host.commands import Commands, Completed
from tests.support import loop

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def run(*argv: str, limit: float = 30.0) -> Completed:
    return loop.run(Commands(PATH).run(*argv, limit=limit))


def program(folder: Path, text: str, mode: int = 0o755) -> Commands:
    (folder / "tool").write_text(text)
    (folder / "tool").chmod(mode)
    return Commands(f"{folder}:{PATH}")


def ended(pid: int) -> bool:
    """Whether the process ends within 10 s. Orphans are the tests' own (tests/conftest.py): reap it."""
    for _ in range(1000):
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                return True
        except ChildProcessError:
            return not Path(f"/proc/{pid}").exists()
        time.sleep(0.01)
    return False


def told(file: Path) -> list[int]:
    """The pids that a program writes into `file`, once it has."""
    for _ in range(1000):
        if file.exists() and (words := file.read_text()).endswith("\n"):
            return [int(word) for word in words.split()]
        time.sleep(0.01)
    raise AssertionError("the program said nothing for 10 s")


def test_what_it_wrote_and_how_it_ended() -> None:
    assert run("sh", "-c", "echo out; echo err >&2; exit 3") == Completed(3, "out\n", "err\n")
    assert run("sh", "-c", r"printf '\377'").out == "\udcff"
    assert run("sh", "-c", "kill -9 $$").code == -9


def test_its_surroundings() -> None:
    script = "pwd; cat; ps -o sid= -p $$ | tr -d ' '; echo $$; env | sort"
    folder, session, pid, *environment = run("sh", "-c", script).out.splitlines()
    assert folder == "/"
    assert session == pid
    assert environment == ["LC_ALL=C.UTF-8", f"PATH={PATH}", "PWD=/"]


def test_no_descriptor_is_inherited() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    assert run("sh", "-c", "ls /proc/$$/fd").out.split() == ["0", "1", "2"]
    os.close(reading)
    os.close(writing)


def test_output_is_bounded_and_drained() -> None:
    done = run("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' a; echo end >&2")
    assert done == Completed(0, "a" * (64 << 10), "end\n")


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="no-such-tool is not installed"):
        run("no-such-tool")
    with pytest.raises(ToolMissing):
        loop.run(program(tmp_path, "#!/bin/sh\n", 0o644).run("tool"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ToolMissing):
        loop.run(Commands(str(tmp_path)).run("folder"))
    with pytest.raises(ToolMissing):
        loop.run(Commands("").run("sh"))


def test_cannot_be_executed(tmp_path: Path) -> None:
    with pytest.raises(ToolFailed, match="cannot be executed") as caught:
        loop.run(program(tmp_path, "#!/no/such/interpreter\n").run("tool", "x"))
    assert caught.value.code == 126
    assert caught.value.argv == ("tool", "x")


FULL = """
import os, resource, sys
from nestd.errors import ToolFailed
from nestd.host.commands import Commands
from tests.support import loop

def descriptors():
    return len(os.listdir("/proc/self/fd"))

async def once():
    before = descriptors()
    resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + int(sys.argv[1]), 4096))
    try:
        await Commands("/usr/bin:/bin").run("true")
    except ToolFailed as failure:
        assert "Too many open files" in str(failure)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    assert descriptors() == before, (descriptors(), before)

loop.run(once())
"""


@pytest.mark.parametrize("left", range(7))
def test_no_room_for_descriptors_leaves_none_behind(left: int) -> None:
    subprocess.run([sys.executable, "-c", FULL, str(left)], cwd=Path(__file__).parents[2], check=True)


@pytest.mark.parametrize("deaf", ["", "trap '' TERM; "])
def test_limit_ends_it_and_its_children(tmp_path: Path, deaf: str) -> None:
    pids = tmp_path / "pids"
    script = f"{deaf}echo half a word >&2; sleep 600 & echo $$ $! > {pids}; wait; sleep 600"
    with pytest.raises(ToolFailed, match="half a word") as caught:
        run("sh", "-c", script, limit=2.0)
    assert caught.value.code == -1
    leader, child = told(pids)
    # It is reaped already: it is no child of ours any more.
    with pytest.raises(ChildProcessError):
        os.waitpid(leader, os.WNOHANG)
    assert ended(child)


def test_cancelling_ends_it_too(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    async def main() -> None:
        script = f"sleep 600 & echo $$ $! > {pids}; wait"
        task = tasks.create_task(Commands(PATH).run("sh", "-c", script))
        await tasks.to_thread(told, pids)
        task.cancel()
        with pytest.raises(tasks.Cancelled):
            await task

    loop.run(main())
    leader, child = told(pids)
    with pytest.raises(ChildProcessError):
        os.waitpid(leader, os.WNOHANG)
    assert ended(child)


def test_what_it_leaves_behind_in_good_order_lives_on(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    done = run("sh", "-c", f"sleep 600 & echo $! > {pids}; echo done")
    (pid,) = told(pids)
    assert done == Completed(0, "done\n", "")
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.kill(pid, 9)
    assert ended(pid)
