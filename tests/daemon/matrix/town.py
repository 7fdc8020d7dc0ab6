# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine with nestd, two guests, two labs and four users, which is put back after each change."""

from __future__ import annotations

from contextlib import ExitStack
from stat import S_ISREG
from types import TracebackType
from typing import Any

from tests.daemon.matrix.oracle import GUEST, HELD, LAB, NEW, Caller, Request
from tests.daemon.village import land
from tests.support import fakeqemu
from tests.support.clients import PATH, Client, Variant, options
from tests.support.daemon import POLICY, Daemon
from tests.support.fakesystemd import FakeSystemd
from tests.support.logins import Login
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools

ZZ = "/etc/modprobe.d/zz-nestd.conf"
NESTED = "/sys/module/kvm_amd/parameters/nested"
REFCNT = "/sys/module/kvm_amd/refcnt"
OWNED = (Caller.ACTIVE, Caller.OTHER)
USERS = {Caller.ACTIVE: "games", Caller.OTHER: "mail"}

Snapshot = dict[str, object]


class Town:
    """`with Town() as town`; each of `clients` is the connection of a process of its user's, in `logins`."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Town:
        with ExitStack() as stack:
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _build(self, stack: ExitStack) -> None:
        self.tree = stack.enter_context(land())
        self.tools = Tools(self.tree)
        fakeqemu.install(self.tree.path("/usr/bin"), fakeqemu.Manner.GOOD)
        self.bus = stack.enter_context(PrivateBus(policies=[POLICY]))
        stack.enter_context(FakeSystemd(self.bus.address, self.tree.top, self.tools.folder))
        self.daemon = stack.enter_context(Daemon(self.bus, self.tree))
        self.logins = {caller: stack.enter_context(Login(self.bus.address, caller.uid)) for caller in Caller}
        self.clients = {caller: stack.enter_context(login.client()) for caller, login in self.logins.items()}
        self.root = self.clients[Caller.ROOT]
        self._before: Snapshot = {}

    @property
    def active(self) -> dict[int, int]:
        """Who is to be in an active session, for polkitd."""
        return {self.logins[Caller.ACTIVE].pid: Caller.ACTIVE.uid}

    def prepare(self, request: Request) -> Snapshot:
        """Make sure that the request would change something; what there is before it."""
        self._prepare_labs(stopped=request.owner if request.label.startswith("LabStart") else None)
        guests = self.guests()
        for name in guests:
            if name not in {name for owner in OWNED for name in (owner.value, f"{owner.value}-1")}:
                self.kill(name)
                # It would be gone with the guest's own mount namespace.
                self.tree.path(f"/run/nestd/console/{name}").unlink()
        for owner in OWNED:
            if owner.value not in guests:
                self._launch(owner)
        on = request.member != "Enable"
        if self.tree.read(NESTED) != f"{on:d}\n":
            self.tree.write(NESTED, f"{on:d}\n")
        self.root.call("CancelPending")
        word = request.label.partition(":")[2]
        self.tree.replace(REFCNT, f"{word in HELD:d}\n")
        # What Enable writes is more than nothing: it is the kernel's default, but said.
        self.tree.path(ZZ).unlink(missing_ok=True)
        if request.member == "Revert":
            self.root.call("Disable", "a{sv}", [options(scope="boot")])
        if HELD.get(word):
            self.root.call("Disable", "a{sv}", [options(scope=HELD[word], when_idle=True)])
            assert self.root.get("PendingChange") == "off"
        (self.tree.top / ".kernel" / "calls").unlink(missing_ok=True)
        return self.snapshot()

    def snapshot(self) -> Snapshot:
        """Everything that a call could have changed: files, modules, tools that ran, units, guests."""
        found: Snapshot = {}
        guests = self.guests()
        for folder in ("etc", "sys", "run", "var", "proc", "lib"):
            for path in (self.tree.top / folder).rglob("*"):
                if path.parent.name == "registry" and path.stem not in guests:
                    continue  # the record of one that has ended, which goes by itself
                mode = path.lstat().st_mode
                found[f"{path}"] = (mode, path.read_bytes() if S_ISREG(mode) else b"")
        found["tools"] = [call for call in self.tools.calls() if call[0] in ("modprobe", "rmmod")]
        found["units"] = sorted(self._units())
        found["guests"] = guests
        return found

    def assert_untouched(self, before: Snapshot) -> None:
        """Nothing has changed."""
        after = self.snapshot()
        assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == set()

    def guests(self) -> dict[str, dict[str, Any]]:
        """The properties of each guest that runs, by its name."""
        [objects] = self.root.call("GetManagedObjects", interface="org.freedesktop.DBus.ObjectManager")
        guests = {found[GUEST]["Name"]: found[GUEST] for found in objects.values() if GUEST in found}
        # Those that have ended are shown for a while.
        return {name: found for name, found in guests.items() if not found["Ended"]}

    def labs(self) -> dict[str, dict[str, Any]]:
        """The properties of each lab, by its name."""
        [objects] = self.root.call("GetManagedObjects", interface="org.freedesktop.DBus.ObjectManager")
        return {found[LAB]["Name"]: found[LAB] for found in objects.values() if LAB in found}

    def launch(self, name: str, user: str) -> None:
        """Start a guest, as root."""
        self.root.call("Launch", "sa{sv}", [name, options(user=user)])

    def kill(self, name: str) -> None:
        """End a guest, as root."""
        self.root.call("Kill", path=f"{PATH}/guest/{name}", interface=GUEST)

    def send(self, client: Client, request: Request, *, interactive: bool = False) -> int:
        """Make the call; its serial."""
        return client.send(
            request.member,
            request.signature,
            request.body,
            path=request.path,
            interface=request.interface,
            interactive=interactive,
        )

    def assert_done(self, request: Request, caller: Caller, before: Snapshot) -> None:
        """What was asked for is there, and nothing else."""
        if request.interface == LAB:
            assert request.owner is not None
            states = {owner.value: "running" for owner in OWNED}
            states[request.owner.value] = {"Start": "running", "Stop": "stopped"}.get(request.member, "gone")
            assert {name: lab["State"] for name, lab in self.labs().items()} == {
                name: state for name, state in states.items() if state != "gone"
            }
        elif request.member in ("Enable", "Disable"):
            scope, on = request.label.partition(":")[2], request.member == "Enable"
            done_now = self.tree.read(NESTED) == f"{on:d}\n"
            done_for_boot = f"nested={on:d}" in (self.tree.root.read(ZZ) or "")
            assert (done_now, done_for_boot) == {
                "both": (True, True),
                "runtime": (True, False),
                "boot": (False, True),
                "dry": (False, False),
                "waits": (False, False),
                "displaces": (False, True),
            }[scope]
            assert self.root.get("PendingChange") == ("off" if scope == "waits" else "")
            if scope == "waits":
                assert self.root.call("GetStatus")[0]["pending-user"] == caller.uid
            assert self.snapshot()["units"] == before["units"]
        elif request.member == "Revert":
            assert self.tree.root.exists(ZZ) == request.label.endswith(":dry")
            assert (self.tree.read(NESTED), self.root.get("PendingChange")) == ("1\n", "")
            assert self.snapshot()["units"] == before["units"]
        elif request.member in ("Launch", "CreateLab"):
            owner = Caller.OTHER if request.label.endswith(":user") else caller
            made = self.guests() if request.member == "Launch" else self.labs()
            assert made[NEW]["Owner"] == owner.uid
        elif request.member == "CancelPending":
            assert self.root.get("PendingChange") == ""
        elif request.member in ("Stop", "Kill"):
            nodes = {f"{owner.value}-1" for owner in OWNED}
            assert set(self.guests()) - nodes == {
                owner.value for owner in OWNED if owner is not request.owner
            }
        else:
            self.assert_untouched(before)
        # QEMU takes as many consoles as it has room for, and the fake one reads none.
        if request.member == "OpenConsole":
            assert request.owner is not None
            self.kill(request.owner.value)

    def _prepare_labs(self, stopped: Caller | None) -> None:
        """Each owner has a lab that runs, but for the one that is to be stopped, and there is no other."""
        labs = self.labs()
        for name in labs:
            if name not in {owner.value for owner in OWNED}:
                self.root.call("Remove", path=f"{PATH}/lab/{name}", interface=LAB)
                self.tree.path(f"/run/nestd/console/{name}-1").unlink()
        for owner in OWNED:
            how: dict[str, Any] = {"path": f"{PATH}/lab/{owner.value}", "interface": LAB}
            state = labs[owner.value]["State"] if owner.value in labs else ""
            if not state:
                self.root.call(
                    "CreateLab",
                    "sa{sv}",
                    [owner.value, {"nodes": Variant("u", 1), **options(user=USERS[owner])}],
                )
            elif owner is stopped and state != "stopped":
                self.root.call("Stop", "a{sv}", [{}], **how)
            elif owner is not stopped and state != "running":
                self.root.call("Start", "a{sv}", [{}], **how)

    def _launch(self, owner: Caller) -> None:
        self.launch(owner.value, USERS[owner])
        # The guest's own mount namespace, in which its console's log lies, is the tree.
        process = self.tree.path(f"/proc/{self.guests()[owner.value]['Pid']}")
        if process.exists():
            return  # the number was used before
        process.mkdir()
        (process / "root").symlink_to(self.tree.top)

    def _units(self) -> list[tuple[str, str]]:
        how = {
            "destination": "org.freedesktop.systemd1",
            "path": "/org/freedesktop/systemd1",
            "interface": "org.freedesktop.systemd1.Manager",
        }
        [rows] = self.root.call("ListUnitsByPatterns", "asas", [[], ["*"]], **how)
        # A failed unit is only the memory of one that was killed; nestd lets systemd forget it afterwards.
        return [(row[0], row[3]) for row in rows if row[3] != "failed"]
