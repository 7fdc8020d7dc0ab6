# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is in the way, what it means to a person, and what that person can do about it."""

import errno
import os
from types import MappingProxyType
from typing import NamedTuple

from nestd import errors
from nestd.host.kvm import API_VERSION
from nestd.model import Driver, DriverState, Extension, KvmAnswer, Nesting, Obstacle, Status
from nestd.nesting import boot, sayings
from nestd.nesting.circumstances import Circumstances
from nestd.nesting.drivers import LIVE

_SIGN = "install the distribution's own kernel, or sign the module with a key that this machine trusts"
_OFF_IN_FIRMWARE = "turn on VT-x or AMD-V (SVM) in the firmware's setup, then power the machine off and on"

# What it means, what to do: each a clause without a full stop. {driver} is the driver's name.
_WORDS = MappingProxyType(
    {
        Obstacle.NO_EXTENSION: (
            "the kernel sees no virtualization extension in this CPU",
            "turn on VT-x or AMD-V in the firmware's setup; in a virtual machine, give it its host's CPU",
        ),
        Obstacle.DRIVER_MISSING: (
            "the running kernel has no module {driver}",
            "install the package with the kernel's KVM modules; if the kernel was just upgraded, reboot",
        ),
        Obstacle.DRIVER_WITHOUT_NESTING: (
            "the KVM driver in charge, {driver}, has no switch for nesting and offers guests no extension",
            "use a kernel whose driver has one: kvm_intel, kvm_amd, kvm (s390x) or kvm_hv (ppc64le)",
        ),
        Obstacle.MODULE_LOADING_DISABLED: (
            "this kernel loads and unloads no more modules (kernel.modules_disabled is 1)",
            "set it for the next boot (scope boot) and reboot",
        ),
    }
)
_NO_DEVICE = (
    "make it again with `mknod -m 660 /dev/kvm c 10 232` and `chgrp kvm /dev/kvm`, or load the driver "
    "again; in a container, pass the device to it"
)
_FORBIDDEN = (
    "look at what confines nestd: a container's list of devices, DeviceAllow= of nestd.service, SELinux or "
    "AppArmor (journalctl -b -g 'denied|DENIED')"
)
# The errno of opening /dev/kvm, though a driver is there.
_UNUSABLE = MappingProxyType(
    {
        errno.ENOENT: ("/dev/kvm is missing, though {driver} runs", _NO_DEVICE),
        errno.EACCES: ("opening /dev/kvm is forbidden to nestd", _FORBIDDEN),
        errno.ENODEV: (
            "/dev/kvm is there, and no driver answers behind it",
            "read why KVM did not start: journalctl -k -g kvm",
        ),
    }
)
_UNUSABLE_OTHERWISE = "read what the kernel says about it: journalctl -k -g kvm"


class Why(NamedTuple):
    """An obstacle with its words: two clauses, empty where nothing is in the way."""

    obstacle: Obstacle
    meaning: str
    remedy: str


class Facts(NamedTuple):
    """What is known when it is asked what is in the way.

    `barred` says what keeps modprobe from loading the driver; `held_by` names another hypervisor that runs
    guests.
    """

    extension: Extension
    driver: Driver | None
    state: DriverState
    switch: Nesting | None
    nested: Nesting
    loading_disabled: bool
    kvm: KvmAnswer
    circumstances: Circumstances
    barred: str = ""
    held_by: str = ""

    @property
    def name(self) -> str:
        """The driver's, or empty."""
        return self.driver.name if self.driver else ""


def find(facts: Facts) -> Why:
    """The first thing that is in the way, with the words for this machine."""
    for why in (_without_switch, _without_extension, _without_kvm, _without_loading):
        if (found := why(facts)) is not None:
            return found
    return Why(Obstacle.NONE, "", "")


def _without_switch(facts: Facts) -> Why | None:
    driver = facts.driver
    if facts.state in LIVE and driver is not None and not driver.switch:
        return _plain(Obstacle.DRIVER_WITHOUT_NESTING, driver.name)
    return None


def _without_extension(facts: Facts) -> Why | None:
    told, none = facts.circumstances, facts.extension is Extension.NONE
    if none and told.hypervisor:
        return hidden(told.hypervisor)
    # Kernels before 6.7 show svm all the same, and kvm_amd does not load.
    if told.firmware and facts.state not in LIVE:
        meaning = f"the firmware has switched the virtualization extension off ({told.firmware})"
        return Why(Obstacle.FIRMWARE_DISABLED, meaning, _OFF_IN_FIRMWARE)
    return _plain(Obstacle.NO_EXTENSION, facts.name) if none else None


def _without_kvm(facts: Facts) -> Why | None:
    if facts.state in {DriverState.NONE, DriverState.MISSING}:
        return _plain(Obstacle.DRIVER_MISSING, facts.name)
    if facts.state in LIVE and facts.kvm.api != API_VERSION:
        return unusable(facts.kvm, facts.name)
    if facts.state in LIVE and facts.switch is None:
        return _plain(Obstacle.DRIVER_WITHOUT_NESTING, facts.name)
    if facts.loading_disabled and facts.state is not DriverState.BUILTIN and facts.nested is Nesting.OFF:
        return _plain(Obstacle.MODULE_LOADING_DISABLED, facts.name)
    return None


def _without_loading(facts: Facts) -> Why | None:
    if facts.state in LIVE:
        return None
    if facts.barred:
        meaning = f"the module {facts.name} is kept from being loaded: {facts.barred}"
        return Why(Obstacle.DRIVER_MISSING, meaning, "take that away, then load the driver again")
    if facts.circumstances.signature:
        strict = facts.circumstances.signature
        meaning = f"the kernel takes only signed modules ({strict}), and {facts.name} has no signature"
        return Why(Obstacle.MODULE_SIGNATURE, meaning, _SIGN)
    return held(facts.held_by) if facts.held_by else None


def hidden(hypervisor: str) -> Why:
    """This machine is a guest and gets no extension."""
    from nestd.nesting import hypervisors  # noqa: PLC0415 -- most machines need none of these

    meaning = f"this machine runs in {hypervisors.name(hypervisor)}, which keeps the extension from it"
    return Why(Obstacle.HIDDEN_BY_HYPERVISOR, meaning, hypervisors.remedy(hypervisor))


def held(name: str) -> Why:
    """Another hypervisor runs guests."""
    meaning = f"another hypervisor, {name}, is running and holds the CPU's extension"
    return Why(Obstacle.VT_HELD_BY_OTHER, meaning, f"stop {name}'s virtual machines, then try again")


def unusable(kvm: KvmAnswer, driver: str) -> Why:
    """KVM runs and cannot be asked, by the errno or the version that it gave."""
    if kvm.api >= 0:
        words = (
            f"/dev/kvm speaks version {kvm.api} of KVM's interface, not {API_VERSION}",
            _UNUSABLE_OTHERWISE,
        )
    else:
        number = errno.EACCES if kvm.error == errno.EPERM else kvm.error
        number = errno.ENODEV if number == errno.ENXIO else number
        other = f"/dev/kvm does not answer as KVM does ({os.strerror(kvm.error)})", _UNUSABLE_OTHERWISE
        words = _UNUSABLE.get(number, other)
    return Why(Obstacle.KVM_UNUSABLE, words[0].format(driver=driver), words[1])


def barred(configuration: boot.Configuration, driver: Driver) -> str:
    """What keeps the driver from being loaded now, as a clause; "" if nothing does.

    `blacklist` does not: it only stops udev.
    """
    install = next((one for one in configuration.installs(driver) if one.never), None)
    if install is not None:
        return f"{install.source} says install {install.module} {install.command}"
    needed = configuration.needed(driver)
    for said in sayings.forbidden(configuration.command_line, boot.COMMAND_LINE, needed):
        return f"the {said.source} {said.clause}"
    return ""


def sentence(status: Status) -> str:
    """What is in the way and what to do, to stand behind a colon. Something is in the way."""
    return f"{status.obstacle_meaning}. To do: {status.obstacle_remedy}."


def of(obstacle: Obstacle, driver: str) -> str:
    """The same for an obstacle that only a certain wish meets, in the words that fit every machine."""
    why = _plain(obstacle, driver)
    return f"{why.meaning}. To do: {why.remedy}."


def _plain(obstacle: Obstacle, driver: str) -> Why:
    meaning, remedy = _WORDS[obstacle]
    return Why(obstacle, meaning.format(driver=driver or "for KVM"), remedy)


def refusal(status: Status) -> errors.NotSupported:
    """The refusal for what is in the way; for an unknown kind of machine, that no switch is known."""
    if status.obstacle:
        return errors.NotSupported(f"{status.obstacle}: {sentence(status)}")
    return refused(Obstacle.DRIVER_WITHOUT_NESTING, status.driver)


def refused(obstacle: Obstacle, driver: str) -> errors.NotSupported:
    """The refusal for an obstacle that no reading shows."""
    return errors.NotSupported(f"{obstacle}: {of(obstacle, driver)}")
