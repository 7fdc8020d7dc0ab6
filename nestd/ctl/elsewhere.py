# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where else a command may go: the words of --host and --machine, what is run to get there, what may fail.

As systemctl has them (systemd's src/libsystemd/sd-bus/sd-bus.c, bus_set_address_system_remote): ssh starts
systemd-stdio-bridge on the other machine, and carries what a bus's socket carries.
"""

from __future__ import annotations

import argparse
import re
import shlex
from typing import NamedTuple

_BRIDGE = "systemd-stdio-bridge"
_MACHINE = r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}|\.host)"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?"
# What ssh(1) takes for a name since 9.6; an older one may hand the rest to a shell (CVE-2023-51385).
_NO_NAME = r"""\s@:/\[\]\\$'"`;&<>|(){}\x00-\x20\x7f"""
_HOST = re.compile(
    rf"(?:(?P<user>{_USER})@)?"
    rf"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\]|(?P<name>[^{_NO_NAME}-][^{_NO_NAME}]*))"
    rf"(?::(?P<port>[0-9]{{1,5}}))?(?:/(?P<machine>{_MACHINE}))?"
)
_CONTAINER = re.compile(rf"{_MACHINE}|{_USER}@|(?:{_USER})?@{_MACHINE}")


class Host(NamedTuple):
    """A machine that ssh reaches, or a container on it: `name` is HOST or USER@HOST, `text` as typed."""

    text: str
    name: str
    port: str
    machine: str

    @property
    def argv(self) -> tuple[str, ...]:
        """The program that leads to its bus. `--`: nothing behind it is an option of ssh's."""
        port = ("-p", self.port) if self.port else ()
        machine = (f"--machine={self.machine}",) if self.machine else ()
        return ("ssh", "-xT", *port, "--", self.name, _BRIDGE, *machine)

    def typed(self, *command: str) -> str:
        """What a person types to run a command there, on a terminal."""
        port = ("-p", self.port) if self.port else ()
        if self.machine and command[0] == "nestctl":
            command = ("nestctl", "-M", self.machine, *command[1:])
        return shlex.join(("ssh", "-t", *port, self.name, shlex.join(command)))

    def why(self, status: int | None) -> str:
        """What it means that the connection has ended: `status` is ssh's, negative for a signal, or None."""
        if status == 255:
            return (
                f"ssh does not reach {self.name}, is not let in, or has lost the connection: its words tell. "
                f"Try {self.typed('true')}"
            )
        if status == 127:
            return (
                f"{self.name} has no {_BRIDGE}, which is a part of systemd. Log in there and run nestctl: "
                f"{self.typed('nestctl')}"
            )
        if status is not None and status < 0:
            return f"ssh to {self.name} was ended by signal {-status}. Try again."
        end = "" if status is None else f" ({_BRIDGE} ended with status {status})"
        return (
            f"{self.text} closed the connection{end}. Is dbus running there? Why it did: "
            f"{self.typed('journalctl', '-t', _BRIDGE)}"
        )


class Machine(NamedTuple):
    """A container or virtual machine of this one, as systemd-machined knows it."""

    text: str

    @property
    def argv(self) -> tuple[str, ...]:
        """The program that leads to its bus."""
        return (_BRIDGE, f"--machine={self.text}")

    def why(self, status: int | None) -> str:
        """As for a Host, of the bridge."""
        end = ""
        if status is not None:
            end = f" (signal {-status})" if status < 0 else f" (status {status})"
        return (
            f"{_BRIDGE} lost or cannot reach the bus of the machine {self.text}{end}. Its reason: "
            f"journalctl -t {_BRIDGE}; `machinectl` lists the machines; only root reaches them without USER@"
        )


def host(text: str) -> Host:
    """A `type` of argparse: [USER@]HOST[:PORT][/MACHINE]; an address of IPv6 in brackets."""
    found = _HOST.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no host: write [USER@]HOST[:PORT], such as root@server or [::1]:2222"
        )
    name = found["v6"] or found["name"]
    whole = f"{found['user']}@{name}" if found["user"] else name
    return Host(text, whole, found["port"] or "", found["machine"] or "")


def machine(text: str) -> Machine:
    """A `type` of argparse: [USER@]NAME."""
    if not _CONTAINER.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no machine: write NAME or USER@NAME, a name that machinectl lists"
        )
    return Machine(text)
