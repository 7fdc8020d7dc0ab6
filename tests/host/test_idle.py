# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever ends the last use of the driver is heard, and nothing is looked at while nothing happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nestd import tasks
from nestd.host.idle import IdleWatch
from nestd.loop import running
from tests.support import loop
from tests.support.tree import Tree

# Seconds in which the looks after an event are over; seconds in which nothing is to be looked at.
CALM, QUIET = 1.0, 0.6
VM = "anon_inode:kvm-vm"


class Driver:
    """A reference count that is looked at; every look is counted."""

    def __init__(self) -> None:
        self.used = True
        self.looks = 0

    def __call__(self) -> bool:
        self.looks += 1
        return self.used


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path).write("/dev/kvm", "")


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing, to be shown by the tree as a holder."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def awaited(tree: Tree, event: Callable[[IdleWatch, Driver], None], *, quiet: bool = True) -> None:
    """It waits, and looks at nothing, until `event`, which ends the use, and then says so."""

    async def main() -> None:
        driver = Driver()
        with IdleWatch(tree.root, driver) as watch:
            waiting = tasks.create_task(watch.idle())
            await tasks.sleep(CALM)
            looks = driver.looks
            await tasks.sleep(QUIET)
            assert not waiting.done()
            assert not quiet or driver.looks == looks
            event(watch, driver)
            async with tasks.timeout(20):
                await waiting

    loop.run(main())


def test_what_is_idle_is_not_waited_for(tree: Tree) -> None:
    async def main() -> None:
        driver = Driver()
        driver.used = False
        with IdleWatch(tree.root, driver) as watch:
            await watch.idle()
        assert driver.looks == 1

    loop.run(main())


def close(path: Path) -> Callable[[IdleWatch, Driver], None]:
    """Somebody closes that node, and the reference goes a moment later."""

    def event(_: IdleWatch, driver: Driver) -> None:
        os.close(os.open(path, os.O_RDWR))
        running().call_later(0.3, setattr, driver, "used", False)

    return event


def test_the_device_is_closed(tree: Tree, process: subprocess.Popen[bytes]) -> None:
    tree.process(process.pid, "qemu", "/dev/kvm", VM)
    awaited(tree, close(tree.path("/dev/kvm")))


def test_the_node_of_a_container_is_closed(tree: Tree, process: subprocess.Popen[bytes]) -> None:
    """Another node of the same device, as it is seen through the holder's descriptor."""
    node = tree.write("/container/dev/kvm", "").path("/container/dev/kvm")
    tree.process(process.pid, "qemu", str(node))
    awaited(tree, close(node))


def test_the_holder_ends(tree: Tree, process: subprocess.Popen[bytes]) -> None:
    tree.process(process.pid, "qemu", VM)

    def event(_: IdleWatch, driver: Driver) -> None:
        tree.gone(f"/proc/{process.pid}")
        driver.used = False
        process.kill()

    awaited(tree, event)


def test_one_of_two_holders_ends(tree: Tree, process: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(["sleep", "60"]) as second:
        tree.process(process.pid, "qemu", VM).process(second.pid, "qemu", VM)

        async def main() -> None:
            driver = Driver()
            with IdleWatch(tree.root, driver) as watch:
                waiting = tasks.create_task(watch.idle())
                for each in (process, second):
                    await tasks.sleep(CALM)
                    assert not waiting.done()
                    tree.gone(f"/proc/{each.pid}")
                    driver.used = each is process
                    each.kill()
                async with tasks.timeout(20):
                    await waiting

        loop.run(main())


def test_a_holder_is_not_to_be_looked_at_any_more(process: subprocess.Popen[bytes]) -> None:
    """The kernel refuses the descriptors of a process that ends just now (EACCES), root's asking too."""
    with tempfile.TemporaryDirectory() as top:
        tree = Tree(Path(top)).write("/dev/kvm", "").process(process.pid, "qemu", VM)
        for each in (tree.top, *tree.top.rglob("*")):
            os.chown(each, 65534, 65534, follow_symlinks=False)

        def event(watch: IdleWatch, driver: Driver) -> None:
            tree.path(f"/proc/{process.pid}/fd").chmod(0o444)
            watch.nudge()
            running().call_later(0.5, setattr, driver, "used", False)

        os.seteuid(65534)  # whom a folder without x holds back, as nobody holds back root
        try:
            awaited(tree, event)
        finally:
            os.seteuid(0)


def test_a_module_comes_or_goes(tree: Tree, process: subprocess.Popen[bytes]) -> None:
    tree.process(process.pid, "qemu", VM)

    def event(watch: IdleWatch, driver: Driver) -> None:
        driver.used = False
        watch.nudge()

    awaited(tree, event)


def test_nobody_shows_that_he_holds_it(tree: Tree) -> None:
    """A large virtual machine takes its time to go when its process has closed it: no event tells its end."""
    awaited(tree, lambda _, driver: setattr(driver, "used", False), quiet=False)


def test_a_process_number_that_is_nobodys(tree: Tree) -> None:
    tree.process(1 << 22, "gone", VM)
    awaited(tree, lambda _, driver: setattr(driver, "used", False), quiet=False)


def test_opening_and_closing_all_day_costs_little(tree: Tree, process: subprocess.Popen[bytes]) -> None:
    tree.process(process.pid, "qemu", "/dev/kvm", VM)

    async def main() -> None:
        driver = Driver()
        with IdleWatch(tree.root, driver) as watch:
            waiting = tasks.create_task(watch.idle())
            await tasks.sleep(CALM)
            looks = driver.looks
            for _ in range(500):
                os.close(os.open(tree.path("/dev/kvm"), os.O_RDWR))
                await tasks.sleep(0)
            await tasks.sleep(2 * CALM)
            # The event at once, and those of the time in which it was looked: two rounds.
            assert driver.looks - looks <= 20
            waiting.cancel()
            await tasks.wait({waiting})

    loop.run(main())


def test_the_kernel_says_that_a_machine_is_gone() -> None:
    """A real uevent of the misc device kvm, in a network namespace of its own."""
    command = ["unshare", "-n", sys.executable, "-m", "tests.host.idle_events"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == {"others": False, "kvm": True}
