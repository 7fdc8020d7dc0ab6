# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where UEFI for guests is: OVMF, in the places where distributions put it."""

from __future__ import annotations

from nestd.errors import LaunchFailed
from nestd.guestmodel import Firmware
from nestd.host.root import Root

# Code and variables of one build; its flash has 4 MiB where both are there. Without Secure Boot, whose code
# wants System Management Mode. Debian and Ubuntu, then Fedora and RHEL, Arch, openSUSE (their packages'
# files).
_PLACES = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.fd", "/usr/share/edk2/x64/OVMF_VARS.fd"),
    ("/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
)


def find(root: Root) -> Firmware:
    """UEFI's code and variables. LaunchFailed: it is not installed."""
    for code, variables in _PLACES:
        if root.exists(code) and root.exists(variables):
            return Firmware(root.path(code), root.path(variables))
    raise LaunchFailed(
        "UEFI for guests is not installed: install the package ovmf (Debian, Ubuntu) or edk2-ovmf (Fedora, "
        "Arch), or leave the option firmware out."
    )
