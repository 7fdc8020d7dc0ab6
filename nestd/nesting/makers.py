# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who makes an initramfs: what each puts into it of modprobe.d, and how one is made anew.

The maker is who made the image that is there, as it shows in it; one that is installed and has not made it
would make another one. Sources: update-initramfs(8), mkinitramfs; dracut(8), dracut.conf(5); mkinitcpio(8);
kernel-install(8); Debian's /etc/initramfs/post-update.d/systemd-boot.

The copy on a boot partition is replaced whole, by nestd. kernel-install would write over kernel and initramfs
there: without power in that moment, or soon after it, nothing could be booted.
"""

from __future__ import annotations

import shlex

from nestd import errors
from nestd.host import bootimages
from nestd.host.bootimages import Installed
from nestd.host.initramfs import DRACUT, INITRAMFS_TOOLS, MKINITCPIO, Image
from nestd.host.machine import Host
from nestd.host.ostree import BOOTED
from nestd.host.root import Root
from nestd.nesting import dropin
from nestd.nesting.steps import Run
from nestd.text import dracut

_ETC, _SHIPPED = "/etc/modprobe.d", ("/usr/lib/modprobe.d", "/lib/modprobe.d")
_PACKAGES = {"update-initramfs": "initramfs-tools", "dracut": "dracut", "mkinitcpio": "mkinitcpio"}
_DRACUT = "/usr/lib/dracut"
_UPDATE_CONF = "/etc/initramfs-tools/update-initramfs.conf"
# What a hook of update-initramfs's calls does nothing then (kernel-install(8); systemd 251).
_BYPASS = ("env", "KERNEL_INSTALL_BYPASS=1")
_COPY = f"""\
set -e
trap 'rm -f -- "$2{bootimages.NEW}"' EXIT
trap 'exit 1' HUP INT TERM
cp -- "$1" "$2{bootimages.NEW}"
sync "$2{bootimages.NEW}"
mv -f -- "$2{bootimages.NEW}" "$2"
sync -f "$2"
"""
Files = tuple[tuple[str, str], ...]


def given(root: Root, maker: str, files: Files) -> Files:
    """Those of modprobe.d's `files` that the maker would put into an image now. Raises OSError."""
    return tuple((path, text) for path, text in files if _copies(root, maker, path))


def remedy(maker: str) -> str:
    """What has the maker put nestd's drop-in into its images, as a sentence; where it does not by itself."""
    if maker == DRACUT:
        line = f'install_optional_items+=" {dropin.PATH} "'
        return f"Write {line} into /etc/dracut.conf.d/nestd.conf, then try again."
    if maker == MKINITCPIO:
        return "Add modconf to HOOKS in /etc/mkinitcpio.conf, then try again."
    return "Take the driver out of the image, which needs none to boot, then try again."


def renewal(host: Host, one: Installed, image: Image) -> tuple[Run, ...]:
    """The commands that make the image anew. Raises BootloaderFailed, which says what to do, and OSError."""
    if host.root.exists(BOOTED):
        raise _by_hand(
            one, f"this system is an image of ostree: rpm-ostree initramfs-etc --track={dropin.PATH}"
        )
    if image.maker == MKINITCPIO:
        return (_mkinitcpio(host, one),)
    if one.path.lower().endswith(".efi"):
        raise _by_hand(one, "it is part of a unified kernel image, which nestd does not make")
    if not one.release:
        raise _by_hand(one, "nestd cannot tell of which kernel it is")
    source = f"/boot/initrd.img-{one.release}"
    copied = (
        one.path != source and one.path.endswith(f"/initrd.img-{one.release}") and host.root.exists(source)
    )
    target = source if copied else one.path
    copies = _same_name(host.root, source, one.release) if target == source else ()
    if image.maker == DRACUT:
        run = _dracut(host, target, one.release)
    elif image.maker == INITRAMFS_TOOLS and target == source:
        run = _update_initramfs(host, one.release, source, _BYPASS if copies else ())
    else:
        raise _by_hand(one, "nestd cannot tell who made it")
    return (run, *(_copy(source, path) for path in copies))


def _same_name(root: Root, source: str, release: str) -> tuple[str, ...]:
    """Its copies on boot partitions; kernel-install leaves the name as it is."""
    name = source.rpartition("/")[2]
    return tuple(path for path in bootimages.copies(root, release) if path.endswith(f"/{name}"))


def _copy(source: str, path: str) -> Run:
    argv = ("sh", "-c", _COPY, "nestd", source, path)
    return Run(argv, keeps=(path,), words=f"copy {source} to {path}")


def _copies(root: Root, maker: str, path: str) -> bool:
    folder = path.rpartition("/")[0]
    if maker == DRACUT and folder not in _SHIPPED:
        return _dracut_copies(root, path)
    if maker == MKINITCPIO:
        return folder in {_ETC, *_SHIPPED} and _mkinitcpio_copies(root)
    return folder in {_ETC, *_SHIPPED}


def _dracut_copies(root: Root, path: str) -> bool:
    from fnmatch import fnmatchcase  # noqa: PLC0415 -- only where an image is dracut's

    names: dict[str, str] = {}
    for folder in (f"{_DRACUT}/dracut.conf.d", "/etc/dracut.conf.d"):
        names.update({name: f"{folder}/{name}" for name in root.files(folder) if name.endswith(".conf")})
    paths = ("/etc/dracut.conf", *(names[name] for name in sorted(names)))
    said = dracut.settings(root.read(one) or "" for one in paths)
    if any(fnmatchcase(path, item) for item in said.items):
        return True
    hostonly = said.hostonly
    if hostonly is None:
        hostonly = dracut.hostonly_by_default(root.read(f"{_DRACUT}/dracut-version.sh") or "")
    # Where it is not known, what is in the image afterwards tells.
    return path.startswith(f"{_ETC}/") and hostonly is not False


def _mkinitcpio_copies(root: Root) -> bool:
    folder = "/etc/mkinitcpio.conf.d"
    paths = ("/etc/mkinitcpio.conf", *(f"{folder}/{name}" for name in root.files(folder)))
    lines = [line for path in paths for line in (root.read(path) or "").split("\n")]
    said = [line for line in lines if not line.lstrip().startswith("#")]
    return not any("HOOKS" in line for line in said) or any("modconf" in line for line in said)


def _update_initramfs(host: Host, release: str, image: str, before: tuple[str, ...]) -> Run:
    argv = ("update-initramfs", "-u", "-k", release)
    _require(host, argv)
    said = [line.strip() for line in (host.root.read(_UPDATE_CONF) or "").split("\n")]
    if any(line.partition("#")[0].strip() == "update_initramfs=no" for line in said):
        raise errors.BootloaderFailed(
            f"{image} must be made anew, but {_UPDATE_CONF} says update_initramfs=no, so that "
            f"`{' '.join(argv)}` does nothing. Nothing was changed. Take that line away, then try again."
        )
    return Run((*before, *argv), keeps=(image,), words=f"run {' '.join(argv)}" if before else "")


def _dracut(host: Host, path: str, release: str) -> Run:
    _require(host, ("dracut", "-f", path, release))
    # dracut writes over the image that is there: without power in that moment, nothing could be booted.
    new = shlex.quote(f"{path}{bootimages.NEW}")
    make = f"dracut -f {new} {shlex.quote(release)} && mv -f {new} {shlex.quote(path)}"
    # Ended by systemd, too, it leaves nothing behind.
    clean = f"trap 'exit 1' TERM; trap {shlex.quote(f'rm -f {new}')} EXIT"
    argv = ("sh", "-c", f"{clean}; {make}")
    return Run(argv, keeps=(path,), words=f"run dracut -f {path} {release}")


def _mkinitcpio(host: Host, one: Installed) -> Run:
    made = [found for found in bootimages.presets(host.root) if host.root.exists(found.path)]
    preset = one.preset or next((found.preset for found in made if found.path == one.path), "")
    if preset:
        argv: tuple[str, ...] = ("mkinitcpio", "-p", preset)
        keeps = tuple(found.path for found in made if found.preset == preset)
    elif one.release and not one.path.lower().endswith(".efi"):
        argv, keeps = ("mkinitcpio", "-k", one.release, "-g", one.path), (one.path,)
    else:
        raise _by_hand(one, "no preset of mkinitcpio names it")
    _require(host, argv)
    return Run(argv, keeps)


def _require(host: Host, argv: tuple[str, ...]) -> None:
    try:
        host.commands.find(argv[0])
    except errors.ToolMissing:
        package = _PACKAGES.get(argv[0], "the package that it is in")
        raise errors.BootloaderFailed(
            f"The initramfs must be made anew with `{' '.join(argv)}`, but {argv[0]} is not installed. "
            f"Nothing was changed. Install {package}, then try again."
        ) from None


def _by_hand(one: Installed, why: str) -> errors.BootloaderFailed:
    return errors.BootloaderFailed(
        f"{one.path} carries KVM's driver or an old option of it and must be made anew, but {why}. "
        "Nothing was changed. Take the driver out of the image, which needs none to boot, then try again."
    )
