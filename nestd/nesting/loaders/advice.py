# SPDX-License-Identifier: LGPL-2.1-or-later
"""What to do by hand where no back end writes the kernel command line: which words, which file, what to run.

Sources: grub-mkconfig(8), loader.conf(5), kernel-install(8), ukify(1), zipl.conf(5), u-boot-update(8),
Microsoft's "Advanced settings configuration in WSL", Raspberry Pi's documentation of cmdline.txt.
"""

# No postponed annotations here: see nestd/model.py.

from collections.abc import Callable, Sequence

from nestd.host.bootloader import NextBoot
from nestd.host.ostree import BOOTED
from nestd.host.root import Root
from nestd.nesting.loaders import grub
from nestd.text.arguments import Edit

_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_EXTLINUX = "/boot/extlinux/extlinux.conf"
_CONTAINERS = ("/run/systemd/container", "/run/.containerenv", "/.dockerenv")
_CMDLINE_TXT = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")


def refused(title: str, why: str) -> str:
    """The back end that was named cannot do it."""
    return (
        f"{title} does not write the kernel command line here: {why}. Nothing was changed. Leave the option "
        "loader away, and nestd looks for one that does."
    )


def several(found: Sequence[tuple[str, str, str]]) -> str:
    """More than one fits: each with its name, its title, and why it says so."""
    listed = "; ".join(f"{title}, as {why}" for _, title, why in found)
    names = " or ".join(f"--loader={name}" for name, _, _ in found)
    return (
        f"More than one boot loader may give the next kernel its command line: {listed}. Nothing was "
        f"changed. Say which one is meant: nestctl {names} (over D-Bus the option loader)."
    )


def none(root: Root, following: NextBoot | None, wanted: Edit, unsure: Sequence[tuple[str, str]]) -> str:
    """Nobody fits. `unsure` are the names of those that may, and why they do not know."""
    maybe = "".join(f" It may be {name} ({why}): if so, say --loader={name}." for name, why in unsure)
    return (
        "Only the kernel command line can do this, and nestd does not know who writes it here. Nothing was "
        f"changed.{maybe} {by_hand(root, following, wanted)}"
    )


def by_hand(root: Root, following: NextBoot | None, wanted: Edit) -> str:
    """What to do instead, on this kind of system: whole sentences."""
    for kind in _KINDS:
        if text := kind(root, following, wanted):
            return text
    return (
        "No boot loader's configuration is found in this system, so its kernel and their arguments come "
        "from outside, and nothing in here can change them. "
        f"{_do(wanted, 'the kernel command line where it is given')} (QEMU: -append; libvirt: <cmdline> in "
        "the domain's <os>; a cloud: the settings of the machine's kernel), then start this machine anew."
    )


def _do(wanted: Edit, where: str) -> str:
    """Take this away there, add that there."""
    gone, come = " ".join(wanted.remove), " ".join(wanted.add)
    if gone and come:
        return f"Take {gone} off {where} and add {come}"
    return f"Take {gone} off {where}" if gone else f"Add {come} to {where}"


def _wsl(root: Root, _: NextBoot | None, wanted: Edit) -> str:
    if "microsoft" not in (root.read("/proc/sys/kernel/osrelease") or "").lower():
        return ""
    return (
        "This is WSL2, whose command line Windows gives. "
        f"{_do(wanted, 'kernelCommandLine = in section [wsl2]')} of %UserProfile%\\.wslconfig "
        "(nestedVirtualization = true belongs there, too), then run wsl --shutdown in Windows."
    )


def _container(root: Root, _: NextBoot | None, wanted: Edit) -> str:
    if not any(root.exists(path) for path in _CONTAINERS):
        return ""
    return (
        "This is a container: its kernel is the host's. "
        f"{_do(wanted, 'the kernel command line of the host')}, by nestd there or in its boot loader's "
        "configuration, then reboot the host."
    )


def _ostree(root: Root, _: NextBoot | None, wanted: Edit) -> str:
    if not root.exists(BOOTED):
        return ""
    rpm = [f"--delete-if-present={word}" for word in wanted.remove]
    rpm += [f"--append-if-missing={word}" for word in wanted.add]
    # This verb only adds, the other one takes the whole line (loaders/ostree.py).
    plain = " ".join(["ostree admin kargs edit-in-place", *(f"--append-if-missing={x}" for x in wanted.add)])
    if wanted.remove:
        line = _do(wanted, "the options of its entry in /boot/loader/entries")
        plain = (
            f"ostree admin instutil set-kargs with all words of the new line, each as --append=WORD ({line})"
        )
    return (
        f"This system was booted by ostree: run rpm-ostree kargs {' '.join(rpm)}, or without rpm-ostree "
        f"{plain}, then reboot."
    )


def _unified(root: Root, following: NextBoot | None, wanted: Edit) -> str:
    path = following.source if following else ""
    if not path.lower().endswith(".efi"):
        return ""
    release = following.release if following and following.release else "$(uname -r)"
    made = (
        f"{_do(wanted, 'the line in /etc/kernel/cmdline')}, then make the image anew: kernel-install add "
        f"{release} /lib/modules/{release}/vmlinuz (layout=uki), mkinitcpio -P, or dracut --force --uefi"
    )
    data = (root.read(_SECURE_BOOT) or "").encode("utf-8", "surrogateescape")
    if data[4:5] == b"\1":
        return (
            f"What is booted next is the unified kernel image {path}, whose command line is signed with it: "
            f"under Secure Boot no other counts. {made}. Sign it with your key (ukify "
            "--secureboot-private-key=, sbctl sign), or it does not boot; then reboot."
        )
    return f"What is booted next is the unified kernel image {path}, with its command line. {made}; reboot."


def _zipl(root: Root, following: NextBoot | None, wanted: Edit) -> str:
    if following is not None or not root.exists("/etc/zipl.conf"):
        return ""
    entries = root.files("/boot/loader/entries")
    where = (
        "the row options of each file in /boot/loader/entries" if entries else "parameters= in /etc/zipl.conf"
    )
    return f"This machine boots by zipl. {_do(wanted, where)}, then run zipl and reboot."


def _entry(_: Root, following: NextBoot | None, wanted: Edit) -> str:
    if following is None or following.loader != "systemd-boot":
        return ""
    where = f"the row options in {following.source}" if following.source else "the row options of each entry"
    return (
        f"systemd-boot boots an entry that nestd does not edit. {_do(wanted, where)} (in "
        "$BOOT/loader/entries), and to /etc/kernel/cmdline if kernel-install makes your entries; then "
        "reboot."
    )


def _grub(root: Root, following: NextBoot | None, wanted: Edit) -> str:
    if following is None or following.loader != "GRUB":
        return ""
    source = following.source.rpartition(":")[0]
    if grub.boots_entries(root) or "/loader/entries/" in source:
        come = f' --args="{" ".join(wanted.add)}"' if wanted.add else ""
        gone = f' --remove-args="{" ".join(wanted.remove)}"' if wanted.remove else ""
        return (
            "GRUB boots the entries in /boot/loader/entries, and grubby, which edits them, is not "
            f"installed: install it, then run grubby --update-kernel=ALL{gone}{come} and reboot."
        )
    second = source.startswith("/boot/grub2/") or (not source and root.exists("/boot/grub2/grub.cfg"))
    made = source if source.endswith("/grub.cfg") else f"/boot/grub{'2' if second else ''}/grub.cfg"
    tool = "grub-mkconfig" if made.startswith("/boot/grub/") else "grub2-mkconfig"
    return (
        f"{_do(wanted, f'GRUB_CMDLINE_LINUX in {grub.SETTINGS}')}, then run {tool} -o {made} and reboot. "
        "What is not made from there has its arguments in an entry of its own."
    )


def _raspberry(root: Root, following: NextBoot | None, wanted: Edit) -> str:
    path = next((one for one in _CMDLINE_TXT if root.exists(one)), "")
    if following is not None or not path:
        return ""
    return f"The firmware takes the command line from {path}. {_do(wanted, 'its only line')}, then reboot."


def _extlinux(root: Root, following: NextBoot | None, wanted: Edit) -> str:
    if following is not None or not root.exists(_EXTLINUX):
        return ""
    if root.exists("/etc/default/u-boot"):
        where = "U_BOOT_PARAMETERS in /etc/default/u-boot"
        return f"U-Boot boots by {_EXTLINUX}. {_do(wanted, where)}, then run u-boot-update and reboot."
    return f"U-Boot boots by {_EXTLINUX}. {_do(wanted, 'each row append in it')}, then reboot."


_KINDS: tuple[Callable[[Root, NextBoot | None, Edit], str], ...] = (
    _wsl,
    _container,
    _ostree,
    _unified,
    _entry,
    _grub,
    _zipl,
    _raspberry,
    _extlinux,
)
