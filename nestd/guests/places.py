# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a guest's things are, and what they are called."""

from __future__ import annotations

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}"
# So begins the name of a guest that nestd starts for itself, such as Verify's: nobody else can give it.
OWN = "_"
UNIT_PREFIX = "nestd-guest-"
UNIT_SUFFIX = ".service"
UNIT_PATTERN = f"{UNIT_PREFIX}*{UNIT_SUFFIX}"
# Below /run; systemd makes it for the unit's user and removes it with the unit.
RUNTIME_DIRECTORY = "nestd/guests"
RUNTIME = f"/run/{RUNTIME_DIRECTORY}"
# Every guest has a small tmpfs of its own here, in its own mount namespace.
CONSOLE_LOGS = "/run/nestd/console"
REGISTRY = "/run/nestd/registry"
HANDOVER = "/run/nestd/handover"
# Where labs are remembered: the daemon's start looks whether there are any.
LABS = "/var/lib/nestd/labs"


def unit(name: str) -> str:
    """The unit of the guest `name`. A guest's name is checked to be fit for it, unescaped."""
    return f"{UNIT_PREFIX}{name}{UNIT_SUFFIX}"


def name_of(unit_name: str) -> str:
    """The guest of a unit's name."""
    return unit_name.removeprefix(UNIT_PREFIX).removesuffix(UNIT_SUFFIX)


def runtime(name: str) -> str:
    """The folder of a guest's sockets: its user's own."""
    return f"{RUNTIME}/{name}"


def qmp(name: str) -> str:
    """QEMU's monitor."""
    return f"{runtime(name)}/qmp"


def console(name: str) -> str:
    """The serial console."""
    return f"{runtime(name)}/console"


def vnc(name: str) -> str:
    """The screen, where there is one."""
    return f"{runtime(name)}/vnc"


def handed_over(name: str, what: str) -> str:
    """What a guest's unit is told at its start, and nobody else."""
    return f"{HANDOVER}/{name}.{what}"


def console_log(name: str) -> str:
    """The console's first MiB, as the guest's own mount namespace has it (/proc/PID/root)."""
    return f"{CONSOLE_LOGS}/{name}"


def record(name: str) -> str:
    """What nestd knows of a running guest, for nestd alone."""
    return f"{REGISTRY}/{name}.json"
