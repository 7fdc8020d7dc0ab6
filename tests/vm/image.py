# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine's disk: Debian from its packages, no loop device, kept until what it is made of changes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.vm import builder, cache, initrd, sources
from tests.vm.problem import VmError
from tests.vm.progress import Progress

_HERE = Path(__file__).parent
_DISK_BYTES = 8 << 30
_KERNEL_PACKAGE = "linux-image-cloud-amd64"
_PACKAGES = (
    "bash", "busybox-static", "dbus", "dbus-daemon", "iproute2", "kmod", "less", "ncurses-base", "polkitd",
    "procps", "python3", "python3-dbus-next", "python3-pyudev", "python3-systemd", "qemu-system-x86",
    "systemd-container", "systemd-sysv", "udev", "util-linux",
)  # fmt: skip
_SCRIPTS = ("agent.py", "cpio.py", "image.py", "initrd.py", "sources.py")


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: a qcow2 without snapshots, kernel and initramfs to boot it (None: it needs none).

    `name` is the kind of system, under which what is made of it is kept; `key` changes with its contents.
    """

    name: str
    key: str
    disk: Path
    kernel: Path
    initrd: Path | None
    ide_initrd: Path  # for an emulator without virtio


def host_packages() -> tuple[str, ...]:
    """Return the Debian packages that this package needs on the host, besides python3."""
    return (
        "mmdebstrap", "debian-archive-keyring", "qemu-system-x86", "qemu-utils", "e2fsprogs", "kmod",
        "util-linux", "dpkg", "coreutils",
    )  # fmt: skip


def ensure(progress: Progress, suite: str = sources.BOOKWORM) -> Image:
    """Return the image of Debian's release `suite`, built now (a minute) if it is not in the cache.

    Raises BuildError with the end of the builder's log.
    """
    cache.root().mkdir(parents=True, exist_ok=True)
    recipe = _planned(suite, progress)
    key = hashlib.sha256("\0".join([recipe.plan.versions(), suite, *_own_text()]).encode()).hexdigest()
    folder = cache.entry(f"image-{suite}", key, lambda building: _build(building, recipe, progress), progress)
    return Image(
        suite,
        key,
        folder / "disk.qcow2",
        folder / "vmlinuz",
        folder / "initrd.img",
        folder / "initrd-ide.img",
    )


def _own_text() -> list[str]:
    paths = [*(_HERE / name for name in _SCRIPTS), *sorted((_HERE / "baked").iterdir())]
    return [f"{path.name}\n{path.read_text()}" for path in paths]


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What an image is made of, and from where; `lists` as in sources.apt_options."""

    suite: str
    found: tuple[sources.Source, ...]
    lists: Path | None
    plan: sources.Plan


def _planned(suite: str, progress: Progress) -> _Recipe:
    """Ask apt, or remember what it said about the same package lists (it takes seconds)."""
    found = sources.of_host(suite=suite)
    lists = None if suite == sources.BOOKWORM else cache.root() / f"lists-{suite}"
    asked = [*_PACKAGES, _KERNEL_PACKAGE]
    stamp = "\0".join([sources.lists_stamp(), *asked, *(source.line for source in found)])
    memory = cache.root() / f"plan-{suite}-{hashlib.sha256(stamp.encode()).hexdigest()[:20]}.json"
    with cache.locked(f"plan-{suite}", progress):
        if not memory.exists():
            progress(f"asking apt which packages Debian {suite}'s machine is made of")
            source_list = cache.root() / f"sources-{suite}.list"
            sources.write_list(found, source_list)
            plan = sources.plan(asked, source_list, lists)
            for old in cache.root().glob(f"plan-{suite}-*.json"):
                old.unlink()
            fresh = memory.with_suffix(".new")
            fresh.write_text(json.dumps({"packages": plan.packages, "kernel": plan.kernel}))
            fresh.rename(memory)
        known = json.loads(memory.read_text())
    return _Recipe(suite, found, lists, sources.Plan(tuple(known["packages"]), known["kernel"]))


def _build(building: Path, recipe: _Recipe, progress: Progress) -> None:
    _check_host()
    log = cache.root() / f"build-{recipe.suite}.log"
    log.unlink(missing_ok=True)
    system = building / "system"
    source_list = building / "sources.list"
    sources.write_list(recipe.found, source_list)
    _bootstrap(recipe.suite, system, source_list, building, log, progress)
    release = _install_kernel(system, source_list, recipe, building, log, progress)

    progress("writing the initramfs of machine and guest")
    (building / "initrd.img").write_bytes(initrd.for_machine(system, release))
    (building / "initrd-ide.img").write_bytes(initrd.for_machine(system, release, initrd.IDE))
    guest = system / "usr/share/nestd-test/guest.cpio.gz"
    guest.parent.mkdir(parents=True)
    guest.write_bytes(initrd.for_guest(system, release))
    shutil.copy(system / f"boot/vmlinuz-{release}", building / "vmlinuz")

    progress("writing the disk")
    raw = building / "disk.raw"
    with raw.open("wb") as disk:
        disk.truncate(_DISK_BYTES)
    builder.run(
        ["mke2fs", "-q", "-t", "ext4", "-J", "size=16", "-m", "0", "-L", "nestd-vm", "-d", system, raw], log
    )
    builder.run(["qemu-img", "convert", "-q", "-O", "qcow2", raw, building / "disk.qcow2"], log)
    raw.unlink()
    cache.remove(system)
    (building / "packages").write_text(recipe.plan.versions() + "\n")


def _check_host() -> None:
    tools = ("mmdebstrap", "mke2fs", "qemu-img", "unshare", "chroot", "depmod", "dpkg-deb")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise VmError(f"{', '.join(missing)}: not installed", "Run tests/setup.")
    if os.geteuid() != 0:
        raise VmError("building the image needs root (it makes a tree with its owners)", "Run it as root.")
    if cache.free_bytes() < 4 << 30:
        raise VmError(f"{cache.root()}: less than 4 GiB free", "Set NESTD_CACHE to a folder with more room.")


def _bootstrap(
    suite: str, system: Path, source_list: Path, building: Path, log: Path, progress: Progress
) -> None:
    settings = building / "apt.conf"
    settings.write_text(sources.carried_settings())
    command: list[str | Path] = [
        "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--architectures=amd64",
        f"--aptopt={settings}", "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=force-unsafe-io",
        f"--include={','.join(_PACKAGES)}",
        f"--customize-hook=NESTD_VM='{_HERE}' '{_HERE}/baked/customize' \"$1\"",
        suite, system, source_list,
    ]  # fmt: skip
    builder.run(command, log, lambda line: _tell(line, progress))


def _tell(line: str, progress: Progress) -> None:
    """Pass on those of mmdebstrap's words that name a phase."""
    phase = line.removeprefix("I: ")
    if phase != line and phase.startswith(("running apt-get", "downloading", "extracting", "installing")):
        progress(f"Debian: {phase.rstrip('.')}")


def _install_kernel(
    system: Path, source_list: Path, recipe: _Recipe, building: Path, log: Path, progress: Progress
) -> str:
    """Unpack the kernel's package into `system`: to install it would bring an initramfs nobody needs.

    Returns the kernel's release.
    """
    plan = recipe.plan
    progress(f"Debian: {plan.kernel}")
    version = next(line for line in plan.packages if line.startswith(f"{plan.kernel}="))
    # apt would drop to the user _apt, who may not write here.
    options = [*sources.apt_options(source_list, recipe.lists), "-o", "APT::Sandbox::User=root"]
    builder.run(["apt-get", "--quiet=2", *options, "download", version], log, cwd=building)
    (package,) = building.glob("linux-image-*.deb")
    unpacked = building / "kernel"
    builder.run(["dpkg-deb", "--extract", package, unpacked], log)
    release = plan.kernel.removeprefix("linux-image-")
    modules = next(path for path in (unpacked / "lib/modules", unpacked / "usr/lib/modules") if path.is_dir())
    shutil.move(modules, system / "usr/lib/modules")
    for path in (unpacked / "boot").iterdir():
        if not path.name.startswith("System.map"):
            shutil.move(path, system / "boot" / path.name)
    (system / "boot/vmlinuz").symlink_to(f"vmlinuz-{release}")
    (system / f"boot/vmlinuz-{release}").chmod(0o644)
    builder.run(["depmod", "--basedir", system, release], log)
    cache.remove(unpacked)
    package.unlink()
    return release
