# SPDX-License-Identifier: LGPL-2.1-or-later
"""The values everything else speaks in: frozen, closed, and without behaviour of their own.

The strings of the enumerations are the ones that cross the bus (data/org.nestd1.xml).
"""

# No postponed annotations here: NamedTuple compiles each one that is text, 3 ms of the time to start.

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class Extension(StrEnum):
    """The CPU's virtualization extension, by the name that its flag has."""

    NONE = ""
    VMX = "vmx"
    SVM = "svm"
    SIE = "sie"
    HV = "hv"
    EL2 = "el2"


class DriverState(StrEnum):
    """Where the KVM driver is. NONE: there is no driver at all that could be meant."""

    NONE = ""
    LOADED = "loaded"
    BUILTIN = "builtin"
    UNLOADED = "unloaded"
    MISSING = "missing"


class Nesting(StrEnum):
    """Whether a guest can get the extension."""

    ON = "on"
    OFF = "off"
    UNSUPPORTED = "unsupported"


class Policy(StrEnum):
    """What nestd was told to keep."""

    ON = "on"
    OFF = "off"
    UNMANAGED = "unmanaged"


class Obstacle(StrEnum):
    """Why nesting cannot be had. The codes are stable; NONE means that nothing is in the way."""

    NONE = ""
    NO_EXTENSION = "no-extension"
    FIRMWARE_DISABLED = "firmware-disabled"
    HIDDEN_BY_HYPERVISOR = "hidden-by-hypervisor"
    DRIVER_MISSING = "driver-missing"
    DRIVER_WITHOUT_NESTING = "driver-without-nesting"
    MODULE_LOADING_DISABLED = "module-loading-disabled"
    MODULE_SIGNATURE = "module-signature"
    VT_HELD_BY_OTHER = "vt-held-by-other"
    KVM_UNUSABLE = "kvm-unusable"


class Scope(StrEnum):
    """What a change is to reach."""

    BOTH = "both"
    RUNTIME = "runtime"
    BOOT = "boot"

    @property
    def runtime(self) -> bool:
        """Whether the running kernel is changed."""
        return self is not Scope.BOOT

    @property
    def boot(self) -> bool:
        """Whether the configuration that the next boot reads is changed."""
        return self is not Scope.RUNTIME


class Driver(NamedTuple):
    """One row of the table of drivers (nestd/nesting/drivers.py).

    `switch` is the module parameter that turns nesting on, empty where the driver has none;
    `on` and `off` are the only values that are written; `default` is what the kernel does
    when nobody says anything, for the kernel release that was asked about.
    """

    name: str
    extension: Extension
    switch: str
    on: str
    off: str
    default: Nesting


class KvmAnswer(NamedTuple):
    """What /dev/kvm itself said.

    `api` is KVM_GET_API_VERSION (12 for every KVM of today) or -1 where it could not be asked;
    `error` is then the errno, else 0. `extensions` are those that KVM_GET_SUPPORTED_CPUID
    offers to guests: the ground truth of what a guest can get.
    """

    api: int
    error: int
    extensions: frozenset[Extension]


class Holder(NamedTuple):
    """A process that holds the driver: it has a VM, or /dev/kvm, among its open files."""

    pid: int
    comm: str
    unit: str
    machine: str


class BootSetting(NamedTuple):
    """What the next boot will give a driver's switch, and who says so.

    `source` names the file and line, `kernel command line` or `kernel default`; `overridden`
    names whatever says otherwise and loses, in the order in which it was read.
    """

    nested: Nesting
    source: str
    overridden: tuple[str, ...]


class Status(NamedTuple):
    """Everything GetStatus tells, as one consistent reading.

    `obstacle_meaning` and `obstacle_remedy` are clauses, empty with no obstacle.
    """

    extension: Extension
    driver: str
    driver_state: DriverState
    nested: Nesting
    nested_at_boot: Nesting
    policy: Policy
    reboot_required: bool
    obstacle: Obstacle
    virtualization: str
    parameters: Mapping[str, str]
    kvm_api: int
    guest_extension: bool
    users: int
    boot_source: str
    overridden: tuple[str, ...]
    obstacle_meaning: str = ""
    obstacle_remedy: str = ""


class Verdict(StrEnum):
    """What a check came to."""

    PASS = "pass"  # noqa: S105 -- no password
    WARN = "warn"
    FAIL = "fail"


class Check(NamedTuple):
    """One row of Diagnose: `message` and `remedy` are whole sentences; a check that passes has no remedy."""

    id: str
    verdict: Verdict
    message: str
    remedy: str

    @classmethod
    def passed(cls, identity: str, message: str) -> "Check":
        """One with nothing to be done."""
        return cls(identity, Verdict.PASS, message, "")


class Waiting(NamedTuple):
    """A change that waits for the driver to become idle; with a `failure`, one that failed at its time.

    `uid` is the user who asked for it; `replace` and `loader` are as in a wish (nestd/nesting/steps.py).
    """

    nested: Nesting
    scope: Scope
    uid: int
    failure: str = ""
    replace: bool = False
    loader: str = ""


class Drift(NamedTuple):
    """The running kernel has something else than nestd was told; `cause` is a clause."""

    expected: Nesting
    actual: Nesting
    cause: str


class ModuleEvent(NamedTuple):
    """A module came or went: `action` is the kernel's word, `add` or `remove`."""

    action: str
    module: str
