# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starting a guest: all of it, or nothing is left."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from nestd import log, tasks
from nestd.errors import CallFailed, GuestExists, InvalidArgs, LaunchFailed, Malformed, NestingNotGranted
from nestd.guestmodel import GuestRecord, GuestSpec, VcpuVerdict
from nestd.guests import (
    blockdevices,
    firmware,
    places,
    prepare,
    programs,
    qemuunit,
    records,
    refusals,
    sandbox,
    vcpu,
)
from nestd.guests.handover import Handover
from nestd.guests.registry import Registry
from nestd.host import words
from nestd.host.accounts import Account
from nestd.host.commands import Commands
from nestd.host.qmpsocket import NotTheGuest, QmpRefused, QmpSocket
from nestd.host.root import Root
from nestd.host.units import UNIT, JobFailed, UnitExists, Units, UnitWatch
from nestd.model import Extension
from nestd.text import qemu
from nestd.wire.library import Variant


class KnowsAccounts(Protocol):
    """What host/accounts.py gives."""

    def by_name(self, name: str) -> Account | None:
        """The account of that name, if there is one."""

    def has_group(self, name: str) -> bool:
        """Whether there is a group of that name."""


class Started(NamedTuple):
    """A guest that was started, the watch of its unit, and what its vCPU got."""

    record: GuestRecord
    watch: UnitWatch
    verdict: VcpuVerdict


class Launcher:
    """Starts guests and hands them to `registry`. `path` is where QEMU is looked for, as PATH has it.

    `answer_limit`: seconds until QEMU listens, and for each of its answers.
    """

    def __init__(
        self,
        root: Root,
        commands: Commands,
        accounts: KnowsAccounts,
        units: Units,
        registry: Registry,
        *,
        path: str,
        answer_limit: float = qemuunit.ANSWER_LIMIT,
    ) -> None:
        self._root = root
        self._commands = commands
        self._accounts = accounts
        self._units = units
        self._registry = registry
        self._path = path
        self._answer_limit = answer_limit
        self._handover = Handover(root)
        self._undoing: set[tasks.Task[None]] = set()

    async def launch(self, spec: GuestSpec, extension: Extension, segment: int | None = None) -> GuestRecord:
        """Start the guest, ask its vCPU what it got, let it run. `extension` is the CPU's.

        `segment` is a connected stream socket's descriptor, which stays the caller's: what the network card
        of a guest in a lab is plugged into, with frames as QEMU's socket netdev has them. Raises InvalidArgs
        (the account), GuestExists, NestingNotGranted, LaunchFailed; then, and when cancelled, nothing of it
        is left.
        """
        with self._registry.reserve(spec.name):
            started = await self.start(spec, extension, segment=segment)
            try:
                self._registry.add(started.record, started.watch)
            except BaseException as error:
                await self.end(started)
                if not isinstance(error, OSError):
                    raise
                raise LaunchFailed(
                    f"The record of {spec.name} cannot be kept: {error.filename}: {error.strerror}."
                ) from error
        return started.record

    async def start(
        self, spec: GuestSpec, extension: Extension, *, runs: bool = True, segment: int | None = None
    ) -> Started:
        """`launch` of a guest that is in no registry: it is the caller's to `end`.

        With `runs` false its vCPU is asked, and never runs.
        """
        account, kvm_group = await self.account(spec.user)
        program = self._program(programs.QEMU)
        if not self._root.exists("/dev/kvm"):
            raise LaunchFailed(
                "There is no /dev/kvm: the KVM driver is not loaded. `nestctl status` says why."
            )
        if spec.network.kind == "lab" and segment is None:
            raise LaunchFailed(
                f"The lab {spec.network.lab} does not run: start it first (`nestctl lab start`)."
            )
        folder, log = (self._root.path(of(spec.name)) for of in (places.runtime, places.console_log))
        uefi = firmware.find(self._root) if spec.firmware == "uefi" else None
        before = prepare.preparation(spec, uefi, folder, self._program)
        devices = blockdevices.find(self._root, spec)
        argv = [program, *qemu.arguments(spec, extension, folder, log, uefi, devices)]
        watch = await self._follow(places.unit(spec.name))
        try:
            with self._handover.files(spec.name, before.credentials) as told:
                made = sandbox.properties(spec, account, argv, kvm_group, before.commands, told, devices)
                await self._start(watch, spec, made, () if segment is None else (segment,))
            verdict = await self._ask(watch, spec, extension, account.uid, runs)
            shape = qemu.shape_of(spec, extension)
            record = records.running(spec.name, account.uid, shape, watch.known, verdict)
            return Started(record, watch, verdict)
        except UnitExists as error:
            await watch.close()
            raise GuestExists(f"There is a unit {watch.unit} already: choose another name.") from error
        except BaseException as error:
            await self._undo(watch)
            if isinstance(error, CallFailed):
                raise LaunchFailed(f"systemd does not tell of {watch.unit}: {error.text}") from error
            raise

    async def end(self, started: Started) -> None:
        """Leave nothing of a guest that is in no registry."""
        await self._undo(started.watch)

    async def account(self, name: str) -> tuple[Account, bool]:
        """Whom a guest of the user `name` runs as, and whether there is KVM's group. InvalidArgs."""
        return await tasks.to_thread(self._account, name)

    def _account(self, name: str) -> tuple[Account, bool]:
        account = self._accounts.by_name(name)
        if account is None:
            raise InvalidArgs(
                f"There is no account {name!a}: create it, or name another with the option user."
            )
        if account.uid == 0:
            raise InvalidArgs("A guest never runs as root: name another account with the option user.")
        return account, self._accounts.has_group(sandbox.KVM_GROUP)

    def _program(self, names: tuple[str, ...]) -> str:
        return programs.find(self._root, self._path, names)

    async def _follow(self, unit: str) -> UnitWatch:
        try:
            return await self._units.follow(unit)
        except CallFailed as error:
            raise LaunchFailed(refusals.refused(unit, error)) from error

    async def _start(
        self,
        watch: UnitWatch,
        spec: GuestSpec,
        properties: list[tuple[str, Variant]],
        fds: tuple[int, ...],
    ) -> None:
        unit, limit = watch.unit, qemuunit.START_LIMIT
        try:
            try:
                await self._units.start_transient(unit, properties, limit, fds)
            except UnitExists:
                # A failed one is only the memory of a guest that is gone.
                if not await self._has_failed(unit):
                    raise
                await self._units.reset_failed(unit)
                await self._units.start_transient(unit, properties, limit, fds)
            await self._units.settle(watch)
        except CallFailed as error:
            raise LaunchFailed(refusals.refused(unit, error)) from error
        except JobFailed as error:
            why = await qemuunit.why_not_begun(self._units, self._commands, watch, error)
            why = refusals.remedied(spec, why)
            raise LaunchFailed(f"{unit} did not start ({error.result}): {why}") from error

    async def _has_failed(self, unit: str) -> bool:
        """Whether it has; where nobody can say, it is not ours to touch."""
        try:
            return bool((await self._units.properties(unit, UNIT)).get("ActiveState") == "failed")
        except CallFailed:
            return False

    async def _ask(
        self, watch: UnitWatch, spec: GuestSpec, extension: Extension, uid: int, runs: bool
    ) -> VcpuVerdict:
        try:
            path = self._root.path(places.qmp(spec.name))
            connection = await qemuunit.monitor(path, uid, watch.ended, self._answer_limit)
            async with QmpSocket(connection, self._answer_limit) as monitor:
                verdict = await vcpu.ask(monitor, self._root, extension)
                if spec.require_nesting and not verdict.nesting:
                    raise NestingNotGranted(refusals.not_granted(spec, extension, verdict))
                if runs:
                    await monitor.execute("cont")
                return verdict
        except TimeoutError as error:
            raise LaunchFailed(refusals.not_answered(spec.name, self._answer_limit)) from error
        except (NotTheGuest, QmpRefused, Malformed) as error:
            raise LaunchFailed(f"QEMU of {spec.name} cannot be talked to: {error}.") from error
        except OSError as error:
            # One that hung up has most likely ended, which systemd is about to tell.
            hung_up = isinstance(error, ConnectionError)
            await tasks.wait([watch.ended], qemuunit.END_LIMIT if hung_up else 0.0)
            if not watch.ended.done():
                raise LaunchFailed(
                    f"QEMU of {spec.name} ran, but its monitor could not be reached, so it was ended: "
                    f"{error.strerror or error}."
                ) from error
            why = await words.last_words(self._commands, watch.known)
            raise LaunchFailed(refusals.not_started(spec, why)) from error

    async def _undo(self, watch: UnitWatch) -> None:
        """Leave nothing of a unit; goes on to its end even if whoever waits for it is cancelled (again)."""
        task = tasks.create_task(self._remove(watch))
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)
        await task

    async def _remove(self, watch: UnitWatch) -> None:
        try:
            await qemuunit.remove(self._units, watch)
        except CallFailed as error:
            log.warning(f"Whether {watch.unit} is gone cannot be told: {error}")
        finally:
            await watch.close()
