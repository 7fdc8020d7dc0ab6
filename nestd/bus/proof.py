# SPDX-License-Identifier: LGPL-2.1-or-later
"""Verify, MeasureExit and CheckCpu of org.nestd1.Manager: what nesting is here, proved and measured."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nestd import errors, tasks
from nestd.bus import boundary
from nestd.bus.exported import Call, Handler
from nestd.bus.runas import RunAs
from nestd.guestmodel import GuestSpec
from nestd.guests import places, request
from nestd.guests.launch import Launcher
from nestd.guests.measure import measure
from nestd.guests.probe.image import Image, image
from nestd.guests.probe.told import Exits
from nestd.guests.verify import Request, Verified, Verifier
from nestd.host.machine import Host
from nestd.host.words import harmless
from nestd.model import Extension, Status
from nestd.nesting import obstacles
from nestd.nesting.changer import Changer
from nestd.nesting.drivers import LIVE
from nestd.nesting.observer import Observer
from nestd.text import cpuinfo, domaincpu, qemu
from nestd.turns import Turns
from nestd.wire.library import Variant

_CPU_OPTIONS = {"cpu": "s", "cpu-features": "as", "user": "s"}
_VERIFY_OPTIONS = {**_CPU_OPTIONS, "timeout": "u"}
# Seconds for Verify.
_TIMEOUT, _SHORTEST, _LONGEST = 120, 5, 600
# Bytes; what is asked does not run.
_CHECKED_MEMORY = 64 << 20
_EXITS = "a{s(dddu)}"
_GUESTS_HAVE = (Extension.VMX, Extension.SVM)  # guests are x86


class Wish(NamedTuple):
    """Any of the three, validated; `user` is empty where the option was not given."""

    user: str
    cpu: str
    features: tuple[str, ...]
    timeout: int


class Proof:
    """The three methods. To be made when the first of them is called: the daemon's start needs none."""

    def __init__(
        self, host: Host, observer: Observer, changer: Changer, launcher: Launcher, run_as: RunAs
    ) -> None:
        self._host = host
        self._observer = observer
        self._changer = changer
        self._launcher = launcher
        self._run_as = run_as
        self._verifier = Verifier(host.root, launcher)
        self._images = Turns()
        self._booted: list[str] = []  # the initrds of those under way
        self._measuring: tasks.Task[Exits] | None = None
        self.methods: Mapping[str, Handler] = {
            "Verify": Handler(lambda call: _wish(call, _VERIFY_OPTIONS), self._verify),
            "MeasureExit": Handler(lambda call: _wish(call, {}), self._measure),
            "CheckCpu": Handler(lambda call: _wish(call, _CPU_OPTIONS), self._check_cpu),
        }

    async def _verify(self, wish: Wish, call: Call) -> Sequence[Any]:
        user = await self._run_as.account(wish.user, call)
        asked = Request(user, wish.cpu, wish.features, float(wish.timeout))
        status = self._able_to_nest()
        async with self._images.next():
            made = await image(self._host, status.driver, str(status.extension), spare=self._booted)
            self._booted.append(made.initrd)
        try:
            return [_told(await self._boot(made, asked))]
        finally:
            self._booted.remove(made.initrd)

    async def _boot(self, made: Image, asked: Request) -> Verified:
        try:
            # Meanwhile another change may have begun, or the driver may be gone.
            status = self._able_to_nest()
        except BaseException:
            if made.lent:
                os.unlink(made.kernel)
            raise
        try:
            return await self._verifier.verify(made, asked, status.extension, status.nested)
        except errors.LaunchFailed as error:
            raise errors.VerifyFailed(f"The probe guest did not start. {error}") from error

    async def _measure(self, _: Wish, __: Call) -> Sequence[Any]:
        status = self._ready()
        if self._measuring is None:
            self._measuring = tasks.create_task(self._time_exits())
            # Whoever asked may be gone by the time it fails.
            self._measuring.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        # A process of its own, and its numbers are better the fewer run beside it: one for all who ask.
        found = await self._measuring
        told = {
            "exits": Variant(_EXITS, _exits(found)),
            "virtualization": Variant("s", status.virtualization),
            "driver": Variant("s", status.driver),
            "cpu-model": Variant("s", harmless(cpuinfo.model(self._host.root.read("/proc/cpuinfo") or ""))),
        }
        return [told]

    async def _time_exits(self) -> Exits:
        try:
            return await measure(self._host.root, self._host.commands)
        finally:
            self._measuring = None

    async def _check_cpu(self, wish: Wish, call: Call) -> Sequence[Any]:
        user = await self._run_as.account(wish.user, call)
        extension = self._able_to_nest().extension
        name = f"{places.OWN}cpu-{os.urandom(4).hex()}"
        spec = GuestSpec(name, user, wish.cpu, wish.features, _CHECKED_MEMORY, require_nesting=False)
        started = await self._launcher.start(spec, extension, runs=False)
        await self._launcher.end(started)
        record = started.record
        told = {
            "qemu": Variant("s", qemu.cpu(spec, extension)),
            "libvirt": Variant("s", domaincpu.domain_cpu(spec.cpu, spec.cpu_features, extension)),
            "nesting": Variant("b", record.nesting),
            "missing": Variant("as", list(started.verdict.dropped)),
            "unknown": Variant("as", list(domaincpu.unknown(spec.cpu, spec.cpu_features))),
        }
        return [told]

    def _able_to_nest(self) -> Status:
        """The same, where nothing but the switch is in the way of a guest that nests. As _ready."""
        status = self._ready()
        if status.obstacle:
            raise obstacles.refusal(status)
        if status.extension not in _GUESTS_HAVE:
            raise errors.NotSupported(
                f"driver-without-nesting: guests are x86 only, and what {status.driver} gives them here is "
                f"{status.extension}. Try it with a guest of another program."
            )
        return status

    def _ready(self) -> Status:
        """The status, where KVM can be used now. Busy, NotSupported, NestingOff."""
        if self._changer.busy:
            raise errors.Busy(
                f"A change is under way ({self._changer.busy}), and KVM is not to be used in the middle of "
                "it. Wait for its end, then try again."
            )
        status = self._observer.refresh().status
        if status.driver_state in LIVE:
            return status
        if status.obstacle:
            raise obstacles.refusal(status)
        raise errors.NestingOff(
            f"{status.driver} is not loaded, so there is nothing to try. Turn nesting on first "
            "(`nestctl enable`)."
        )


def _wish(call: Call, table: Mapping[str, str]) -> Wish:
    """Check all that can be known without looking at the machine. InvalidArgs."""
    given = boundary.options(call.arguments[0], table)
    user, timeout = given.pop("user", ""), given.pop("timeout", _TIMEOUT)
    if not _SHORTEST <= timeout <= _LONGEST:
        raise errors.InvalidArgs(
            f"timeout is in seconds, from {_SHORTEST} to {_LONGEST}, not {timeout}: a slow machine boots "
            "the probe guest in a minute."
        )
    spec = request.guest_spec("verify", user, given)
    return Wish(user, spec.cpu, spec.cpu_features, timeout)


def _told(found: Verified) -> dict[str, Variant]:
    seen = found.verdict
    return {
        "works": Variant("b", seen.ran),
        "level": Variant("s", seen.level),
        "why": Variant("s", seen.why),
        "extension": Variant("b", seen.extension),
        "flags": Variant("as", list(seen.flags)),
        "missing": Variant("as", list(found.missing)),
        "cpu": Variant("s", found.cpu),
        "kvm-loaded": Variant("b", seen.kvm_loaded),
        "vm-created": Variant("b", seen.vm_created),
        "ran": Variant("b", seen.ran),
        "exits": Variant(_EXITS, _exits(seen.exits) if seen.exits else {}),
        "unmeasured": Variant("s", seen.unmeasured),
        "log": Variant("s", seen.log),
        "boot-seconds": Variant("d", found.booted),
        "seconds": Variant("d", found.seconds),
    }


def _exits(found: Exits) -> dict[str, list[float | int]]:
    return {kind: list(spread) for kind, spread in found._asdict().items()}
