# SPDX-License-Identifier: LGPL-2.1-or-later
"""What does not change while the machine runs, or is too dear for each reading."""

from typing import NamedTuple

from nestd import errors, log
from nestd.host.machine import Host
from nestd.host.virt import virtualization
from nestd.model import DriverState
from nestd.nesting import drivers

# arch/x86/kernel/cpu/feat_ctl.c and amd.c, arch/x86/kvm/vmx/vmx.c, svm/svm.c, and x86.c before Linux 6.0.
_FIRMWARE = (
    r"VMX \(outside TXT\) disabled by BIOS|VMX \(inside TXT\) disabled by BIOS|VMX disabled by BIOS"
    r"|SVM disabled \(by BIOS\) in MSR_VM_CR|VMX not enabled \(by BIOS\) in MSR_IA32_FEAT_CTL"
    r"|kvm: disabled by bios"
)


class Circumstances(NamedTuple):
    """Where the CPU's driver runs, only `virtualization` is looked up: nothing else can be in the way then.

    `virtualization` is systemd-detect-virt's word. `hypervisor` is the key in nesting/hypervisors.py of the
    one that this machine runs in. `firmware` and `signature` say, as clauses, what shows that the firmware
    has the extension off, and who refuses a driver that has no signature; "" where nothing shows it.
    """

    virtualization: str
    hypervisor: str = ""
    firmware: str = ""
    signature: str = ""


async def gather(host: Host) -> Circumstances:
    """Look it all up. OSError where /proc or /sys fails."""
    word = await _word(host)
    seen = drivers.in_charge(host)
    if seen.live and seen.extensions:
        return Circumstances(word)
    return Circumstances(
        word,
        "" if seen.extensions else await _hypervisor(host, word, seen.flags),
        await _firmware(host),
        await _signature(host, seen) if seen.state is DriverState.UNLOADED else "",
    )


async def _word(host: Host, *options: str) -> str:
    try:
        return await virtualization(host.commands, *options)
    except errors.ToolFailed as failure:
        log.warning(f"What this machine runs in cannot be told: {failure}")
        return ""


async def _hypervisor(host: Host, word: str, flags: frozenset[str]) -> str:
    from nestd.nesting import hypervisors  # noqa: PLC0415 -- most machines need none of these

    return hypervisors.refine(host.root, word, await _word(host, "--vm"), flags)


async def _firmware(host: Host) -> str:
    from nestd.host import kernellog, msr  # noqa: PLC0415

    said = await kernellog.lines(host.root, host.commands, _FIRMWARE)
    if said:
        return f"the kernel's log says: {said[0].strip()}"
    return msr.locked_off(host.root)


async def _signature(host: Host, seen: drivers.InCharge) -> str:
    """Only that a module has no signature can be told without loading it, not whether its key is trusted."""
    enforced = enforcement(host)
    if not enforced or seen.driver is None:
        return ""
    try:
        done = await host.commands.run("modinfo", "--field=signer", seen.driver.name)
    except (errors.ToolMissing, errors.ToolFailed):
        return ""
    return "" if done.code or done.out.strip() else enforced


def enforcement(host: Host) -> str:
    """Who makes the kernel refuse unsigned modules, as a clause; "" where nobody does.

    Sources: kernel/module/signing.c; security/lockdown/lockdown.c: "none [integrity] confidentiality".
    """
    if (host.root.read("/sys/module/module/parameters/sig_enforce") or "").strip() in ("Y", "1"):
        return "module.sig_enforce is on"
    level = (host.root.read("/sys/kernel/security/lockdown") or "").partition("[")[2].partition("]")[0]
    return f"the kernel is locked down ({level})" if level not in ("", "none") else ""
