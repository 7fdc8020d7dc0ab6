# SPDX-License-Identifier: LGPL-2.1-or-later
"""The closed hierarchy of errors. Nothing else crosses the bus.

    NestdError
    ├── BusError                  has a D-Bus name; its text is for the caller
    │   ├── InvalidArgs           the request is wrong: nothing was looked at
    │   ├── AccessDenied, InteractiveAuthorizationRequired
    │   ├── UnknownMethod, UnknownObject, UnknownInterface, UnknownProperty, PropertyReadOnly
    │   ├── LimitsExceeded, Timeout, Failed
    │   └── InUse, NotSupported, ReloadFailed, RollbackFailed, Busy, Overridden,
    │       BootloaderUnknown, BootloaderFailed, NestingOff, NestingNotGranted, GuestExists,
    │       GuestNotFound, LabExists, LabNotFound, LaunchFailed, VerifyFailed
    ├── CallFailed                another service answered a call of ours with an error
    ├── Malformed                 a text or a message is not what it claims to be
    └── ToolMissing, ToolFailed   a program that was needed

Every text says what, why and what to do, in one or two sentences.
"""

from __future__ import annotations

from collections.abc import Sequence

_OWN = "org.nestd1.Error."
_STANDARD = "org.freedesktop.DBus.Error."


class NestdError(Exception):
    """The root of everything nestd raises on purpose."""


class BusError(NestdError):
    """An error that a caller on the bus may see: `name` is its D-Bus name."""

    name = _STANDARD + "Failed"


class Failed(BusError):
    """The unforeseen: the details are in the journal, not on the bus."""


class InvalidArgs(BusError):
    """The request is wrong in itself: unknown option, wrong type, impossible value."""

    name = _STANDARD + "InvalidArgs"


class AccessDenied(BusError):
    """polkit refused, or nobody could be asked."""

    name = _STANDARD + "AccessDenied"


class InteractiveAuthorizationRequired(BusError):
    """polkit would have to ask somebody, and the caller did not allow it to."""

    name = _STANDARD + "InteractiveAuthorizationRequired"


class UnknownMethod(BusError):
    name = _STANDARD + "UnknownMethod"


class UnknownObject(BusError):
    name = _STANDARD + "UnknownObject"


class UnknownInterface(BusError):
    name = _STANDARD + "UnknownInterface"


class UnknownProperty(BusError):
    name = _STANDARD + "UnknownProperty"


class PropertyReadOnly(BusError):
    name = _STANDARD + "PropertyReadOnly"


class LimitsExceeded(BusError):
    """Too large, or too many at once."""

    name = _STANDARD + "LimitsExceeded"


class Timeout(BusError):
    name = _STANDARD + "Timeout"


class InUse(BusError):
    """The driver is in use; the text names the holders."""

    name = _OWN + "InUse"


class NotSupported(BusError):
    """Nesting cannot be had here; the text begins with the obstacle's code."""

    name = _OWN + "NotSupported"


class ReloadFailed(BusError):
    """The change failed; the old state is back."""

    name = _OWN + "ReloadFailed"


class RollbackFailed(BusError):
    """The change failed and so did its undoing; the text says what is loaded now."""

    name = _OWN + "RollbackFailed"


class Busy(BusError):
    """Another change runs; the text says which."""

    name = _OWN + "Busy"


class Overridden(BusError):
    """A later file or the kernel command line wins; the text names it."""

    name = _OWN + "Overridden"


class BootloaderUnknown(BusError):
    """Only the kernel command line can do it, and nestd does not know who writes that."""

    name = _OWN + "BootloaderUnknown"


class BootloaderFailed(BusError):
    """A tool of the boot loader or of the initramfs failed; the old state is back. The text has its words."""

    name = _OWN + "BootloaderFailed"


class NestingOff(BusError):
    """A guest was asked for that needs nesting, and nesting is off."""

    name = _OWN + "NestingOff"


class NestingNotGranted(BusError):
    """QEMU dropped the extension; the text names the flag."""

    name = _OWN + "NestingNotGranted"


class GuestExists(BusError):
    name = _OWN + "GuestExists"


class GuestNotFound(BusError):
    name = _OWN + "GuestNotFound"


class LabExists(BusError):
    name = _OWN + "LabExists"


class LabNotFound(BusError):
    name = _OWN + "LabNotFound"


class LaunchFailed(BusError):
    """QEMU did not start; the text carries QEMU's own words."""

    name = _OWN + "LaunchFailed"


class VerifyFailed(BusError):
    """What proves from inside could not be made or run; what it would have said is not known."""

    name = _OWN + "VerifyFailed"


# The name of CallFailed where nobody answered in time.
NO_REPLY = "org.freedesktop.DBus.Error.NoReply"


class CallFailed(NestdError):
    """Another service answered a call with an error, or did not answer in time."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


class Malformed(NestdError):
    """A text or a message is not what it claims to be."""


class ToolMissing(NestdError):
    """A program that was needed is not installed."""

    def __init__(self, tool: str) -> None:
        super().__init__(f"{tool} is not installed")
        self.tool = tool


class ToolFailed(NestdError):
    """A program ended otherwise than with 0, or not in time (`code` is then -1)."""

    def __init__(self, argv: Sequence[str], code: int, words: str) -> None:
        super().__init__(f"{' '.join(argv)}: " + (words.strip() or f"exit status {code}"))
        self.argv = tuple(argv)
        self.code = code
        self.words = words.strip()
