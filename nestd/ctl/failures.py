# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a call can fail, what is said about it, and with which exit code nestctl then ends."""

from __future__ import annotations

FAILED, USAGE, REFUSED, UNSUPPORTED, IN_USE = 1, 2, 3, 4, 5

_OWN = "org.nestd1.Error."
_BUS = "org.freedesktop.DBus.Error."

#: the errors that do not mean 1
_CODES = {
    _BUS + "InvalidArgs": USAGE,
    _BUS + "AccessDenied": REFUSED,
    _BUS + "InteractiveAuthorizationRequired": REFUSED,
    _OWN + "NotSupported": UNSUPPORTED,
    _OWN + "BootloaderUnknown": UNSUPPORTED,
    _OWN + "InUse": IN_USE,
    _OWN + "Busy": IN_USE,
}
_NOT_THERE = (
    _BUS + "ServiceUnknown",
    _BUS + "NameHasNoOwner",
    _BUS + "Spawn.",  # dbus-daemon could not activate
    "org.freedesktop.systemd1.",  # nor could systemd
)


class CtlError(Exception):
    """Why a command of nestctl failed."""


class Unreachable(CtlError):
    """The bus cannot be reached, went away, or does not answer; the text says which and what to do."""


class Unwritable(CtlError):
    """The result cannot be written to standard output; the text says why."""


class Refused(CtlError):
    """The call was answered with an error: `name` is its D-Bus name, `text` what it says."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name = name
        self.text = text

    @property
    def exit_code(self) -> int:
        """What nestctl ends with."""
        return _CODES.get(self.name, FAILED)

    @property
    def short(self) -> str:
        """The last part of the error's name, as people know it."""
        return self.name.rpartition(".")[2]

    @property
    def sentence(self) -> str:
        """What to tell a person."""
        if self.name.startswith(_NOT_THERE):
            return f"nestd is not running and cannot be activated: systemctl status nestd ({self.text})"
        if self.name == _BUS + "NoReply":
            return "nestd went away before it answered; what it did is in its journal: journalctl -u nestd"
        return self.text or f"nestd answered {self.name} and said no more"
