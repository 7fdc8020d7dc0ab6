# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starting a guest: all of it, or nothing is left."""

from __future__ import annotations

import errno
import signal
import socket
from typing import Protocol

from nestd import log, tasks
from nestd.errors import CallFailed, GuestExists, InvalidArgs, LaunchFailed, Malformed, NestingNotGranted
from nestd.guestmodel import GuestRecord, GuestSpec, VcpuVerdict
from nestd.guests import emulator, places, records, sandbox, vcpu
from nestd.guests.registry import Registry
from nestd.host import words
from nestd.host.accounts import Account
from nestd.host.commands import Commands
from nestd.host.qmpsocket import NotTheGuest, QmpRefused, QmpSocket, connect
from nestd.host.root import Root
from nestd.host.units import UNIT, JobFailed, UnitExists, Units, UnitWatch
from nestd.model import Extension
from nestd.text import qemu
from nestd.wire.library import Variant

# Seconds until QEMU listens; opening slow disks comes before that.
_LISTEN_LIMIT = 30.0
_LISTEN_PAUSE = 0.02
_EXCHANGE_LIMIT = 10.0
# Seconds for the unit's end once QEMU hung up, or was told to go (systemd kills it after 10).
_END_LIMIT = 20.0


class KnowsAccounts(Protocol):
    """What host/accounts.py gives."""

    def by_name(self, name: str) -> Account | None:
        """The account of that name, if there is one."""

    def has_group(self, name: str) -> bool:
        """Whether there is a group of that name."""


class Launcher:
    """Starts guests and hands them to `registry`. `path` is where QEMU is looked for, as PATH has it."""

    def __init__(
        self,
        root: Root,
        commands: Commands,
        accounts: KnowsAccounts,
        units: Units,
        registry: Registry,
        *,
        path: str,
    ) -> None:
        self._root = root
        self._commands = commands
        self._accounts = accounts
        self._units = units
        self._registry = registry
        self._path = path
        self._undoing: set[tasks.Task[None]] = set()

    async def launch(self, spec: GuestSpec, extension: Extension) -> GuestRecord:
        """Start the guest, ask its vCPU what it got, let it run. `extension` is the CPU's.

        Raises InvalidArgs (the account), GuestExists, NestingNotGranted, LaunchFailed; then, and when
        cancelled, nothing of it is left.
        """
        account, kvm_group = await tasks.to_thread(self._account, spec.user)
        program = emulator.find(self._root, self._path)
        if not self._root.exists("/dev/kvm"):
            raise LaunchFailed(
                "There is no /dev/kvm: the KVM driver is not loaded. `nestctl status` says why."
            )
        with self._registry.reserve(spec.name):
            sockets, log = (self._root.path(of(spec.name)) for of in (places.runtime, places.console_log))
            argv = [program, *qemu.arguments(spec, extension, sockets, log)]
            watch = await self._units.follow(places.unit(spec.name))
            try:
                await self._start(watch, sandbox.properties(spec, account, argv, kvm_group))
                verdict = await self._ask(watch, spec, extension, account.uid)
                shape = qemu.Shape(qemu.cpu(spec, extension), spec.memory, spec.vcpus)
                record = records.running(spec.name, account.uid, shape, watch.known, verdict)
                self._registry.add(record, watch)
            except UnitExists as error:
                await watch.close()
                raise GuestExists(f"There is a unit {watch.unit} already: choose another name.") from error
            except OSError as error:
                await self._undo(watch)
                raise LaunchFailed(
                    f"The record of {spec.name} cannot be kept: {error.filename}: {error.strerror}."
                ) from error
            except BaseException:
                await self._undo(watch)
                raise
        return record

    def _account(self, name: str) -> tuple[Account, bool]:
        account = self._accounts.by_name(name)
        if account is None:
            raise InvalidArgs(
                f"There is no account {name!a}: create it, or name another with the option user."
            )
        if account.uid == 0:
            raise InvalidArgs("A guest never runs as root: name another account with the option user.")
        return account, self._accounts.has_group(sandbox.KVM_GROUP)

    async def _start(self, watch: UnitWatch, properties: list[tuple[str, Variant]]) -> None:
        unit = watch.unit
        try:
            try:
                await self._units.start_transient(unit, properties)
            except UnitExists:
                # A failed one is only the memory of a guest that is gone.
                if (await self._units.properties(unit, UNIT)).get("ActiveState") != "failed":
                    raise
                await self._units.reset_failed(unit)
                await self._units.start_transient(unit, properties)
            watch.settle(await self._units.properties(unit))
        except CallFailed as error:
            raise LaunchFailed(f"systemd refused to start {unit}: {error.text}") from error
        except JobFailed as error:
            watch.settle(await self._units.properties(unit))
            why = await words.last_words(self._commands, watch.known)
            raise LaunchFailed(f"{unit} did not start ({error.result}): {why}") from error

    async def _ask(self, watch: UnitWatch, spec: GuestSpec, extension: Extension, uid: int) -> VcpuVerdict:
        try:
            async with QmpSocket(await self._connection(watch, spec.name, uid), _EXCHANGE_LIMIT) as monitor:
                verdict = await vcpu.ask(monitor, extension)
                if spec.require_nesting and not verdict.nesting:
                    raise NestingNotGranted(_not_granted(spec, extension, verdict))
                await monitor.execute("cont")
                return verdict
        except TimeoutError as error:
            raise LaunchFailed(f"QEMU of {spec.name} does not answer on its monitor.") from error
        except (NotTheGuest, QmpRefused, Malformed) as error:
            raise LaunchFailed(f"QEMU of {spec.name} cannot be talked to: {error}.") from error
        except OSError as error:
            await tasks.wait([watch.ended], _END_LIMIT)
            why = await words.last_words(self._commands, watch.known)
            raise LaunchFailed(f"QEMU did not start {spec.name}: {why}") from error

    async def _connection(self, watch: UnitWatch, name: str, uid: int) -> socket.socket:
        path = self._root.path(places.qmp(name))
        async with tasks.timeout(_LISTEN_LIMIT):
            while not watch.ended.done():
                try:
                    return connect(path, uid)
                except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                    await tasks.sleep(_LISTEN_PAUSE)
        raise ConnectionResetError(errno.ECONNRESET, "QEMU ended before it listened")

    async def _undo(self, watch: UnitWatch) -> None:
        """Leave nothing of a unit; goes on to its end even if whoever waits for it is cancelled (again)."""
        task = tasks.create_task(self._remove(watch))
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)
        await task

    async def _remove(self, watch: UnitWatch) -> None:
        try:
            watch.settle(await self._units.properties(watch.unit))
            await self._units.stop(watch.unit)
            await tasks.wait([watch.ended], _END_LIMIT)
            if not watch.ended.done():
                await self._units.kill(watch.unit, signal.SIGKILL)
            await self._units.reset_failed(watch.unit)
        except CallFailed as error:
            log.warning(f"{watch.unit} could not be removed: {error}")
        finally:
            await watch.close()


def _not_granted(spec: GuestSpec, extension: Extension, verdict: VcpuVerdict) -> str:
    flag = extension.value
    if f"-{flag}" in spec.cpu_features:
        return f"{spec.name} would run without {flag}: cpu-features takes it away. Leave -{flag} out."
    dropped = ", ".join(verdict.missing) or "none that it names"
    return (
        f"{spec.name} would run without {flag}: QEMU did not give it to the CPU model {spec.cpu} "
        f"(flags dropped: {dropped}). Look at `nestctl diagnose`, try another cpu, or set require-nesting "
        "to false."
    )
