# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can go wrong with the emulated machine; each says what, and what to do."""

from __future__ import annotations


class VmError(Exception):
    """The root of every error that tests.vm raises itself."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint


class BuildError(VmError):
    """The image could not be built; the message carries the end of the builder's log."""


class MachineDiedError(VmError):
    """QEMU ended although nobody asked it to."""


class KernelPanicError(MachineDiedError):
    """The machine's kernel said so on its console."""


class OutOfTimeError(VmError):
    """A wait ran out; the message carries the end of the console."""


class QmpError(VmError):
    """QEMU refused a command, or a snapshot."""


class CommandError(VmError):
    """A command in the machine ended with something else than 0, and the caller wanted 0."""
