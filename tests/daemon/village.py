# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine with the real daemon, the fake systemd and the fake QEMU: for many guests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import fakeqemu
from tests.support.clients import DBUS, NAME, PATH, Client, Variant, options
from tests.support.daemon import POLICY, Daemon
from tests.support.fakesystemd import FakeSystemd
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

GUEST = "org.nestd1.Guest"
OBJECTS = "org.freedesktop.DBus.ObjectManager"
USER = "games"  # an unprivileged account of every Debian
# Half of what a caller may have under way (nestd/bus/callers.py): a call counts a moment after its reply.
AT_ONCE = 8


class Census(NamedTuple):
    """All that could leak, of the daemon and of what it keeps elsewhere."""

    descriptors: int
    threads: int
    match_rules: int
    objects: tuple[str, ...]
    files: tuple[str, ...]
    units: tuple[str, ...]


class Village:
    """What can be done to it, and what is there."""

    def __init__(self, tree: Tree, bus: PrivateBus) -> None:
        self.tree = tree
        self.tools = Tools(self.tree)
        self.bus = bus
        self.manner(fakeqemu.Manner.GOOD)

    def manner(self, manner: fakeqemu.Manner) -> None:
        """How QEMU behaves from the next start on."""
        fakeqemu.install(self.tree.path("/usr/bin"), manner)

    def launch(self, client: Client, name: str) -> int:
        """Ask for a guest; the call's serial."""
        return client.send("Launch", "sa{sv}", [name, options(user=USER)])

    def stop(self, client: Client, name: str, seconds: int = 30) -> int:
        """Ask for its end; the call's serial."""
        given = {"timeout": Variant("t", seconds)}
        return client.send("Stop", "a{sv}", [given], path=f"{PATH}/guest/{name}", interface=GUEST)

    def kill(self, client: Client, name: str) -> int:
        """The same, at once."""
        return client.send("Kill", path=f"{PATH}/guest/{name}", interface=GUEST)

    def all_of(self, client: Client, how: Any, names: Sequence[str]) -> None:
        """Do one thing to many guests, as many at once as one caller may."""
        for first in range(0, len(names), AT_ONCE):
            serials = [how(client, name) for name in names[first : first + AT_ONCE]]
            for serial in serials:
                client.reply(serial)

    def guests(self, client: Client) -> dict[str, dict[str, Any]]:
        """The properties of each guest, by its name."""
        [objects] = client.call("GetManagedObjects", interface=OBJECTS)
        return {found[GUEST]["Name"]: found[GUEST] for found in objects.values() if GUEST in found}

    def running(self, client: Client) -> set[str]:
        """The guests that run."""
        return {name for name, found in self.guests(client).items() if found["State"] == "running"}

    def census(self, client: Client, daemon: Daemon) -> Census:
        """What is there now."""
        stats = {"destination": DBUS, "path": "/org/freedesktop/DBus", "interface": f"{DBUS}.Debug.Stats"}
        [counted] = client.call("GetConnectionStats", "s", [client.owner_of(NAME)], **stats)
        proc = Path(f"/proc/{daemon.pid}")
        [objects] = client.call("GetManagedObjects", interface=OBJECTS)
        return Census(
            len(list((proc / "fd").iterdir())),
            len(list((proc / "task").iterdir())),
            counted["MatchRules"],
            tuple(sorted(objects)),
            tuple(sorted(str(path) for path in self.tree.path("/run/nestd").rglob("*"))),
            tuple(sorted(self._units(client))),
        )

    def _units(self, client: Client) -> list[str]:
        how = {
            "destination": "org.freedesktop.systemd1",
            "path": "/org/freedesktop/systemd1",
            "interface": "org.freedesktop.systemd1.Manager",
        }
        [rows] = client.call("ListUnitsByPatterns", "asas", [[], ["*"]], **how)
        return [row[0] for row in rows]


@contextmanager
def land() -> Iterator[Tree]:
    """A machine whose users reach what is in it; the folder's name is short, as sockets are in it."""
    top = Path(tempfile.mkdtemp(prefix="nestd-v-"))
    try:
        top.chmod(0o755)
        tree = Tree(top).amd().module("kvm_amd").write("/etc/machine-id", "0" * 32 + "\n")
        tree.write("/dev/kvm", "")
        for folder in ("/etc/modprobe.d", "/usr/bin", "/run"):
            tree.path(folder).mkdir(parents=True, exist_ok=True)
        yield tree
    finally:
        shutil.rmtree(top)


@contextmanager
def village() -> Iterator[Village]:
    """A village without its daemon."""
    with land() as tree, PrivateBus(policies=[POLICY]) as bus:
        made = Village(tree, bus)
        with FakeSystemd(bus.address, tree.top, made.tools.folder):
            yield made
