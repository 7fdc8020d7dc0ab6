# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine's disk: Debian from its packages, no loop device, kept until what it is made of changes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.vm import builder, cache, chains, initrd, sources
from tests.vm.chains import Chain
from tests.vm.hardware import Pflash
from tests.vm.problem import VmError
from tests.vm.progress import Progress

_HERE = Path(__file__).parent
_DISK_BYTES = 8 << 30
_KERNEL_PACKAGE = "linux-image-cloud-amd64"
_PACKAGES = (
    "bash", "busybox-static", "dbus", "dbus-daemon", "iproute2", "kmod", "less", "ncurses-base", "polkitd",
    "procps", "python3", "python3-dbus-next", "python3-pyudev", "python3-systemd", "systemd-sysv", "udev",
    "util-linux",
)  # fmt: skip
# Only for those that start guests: they are as large as all the rest.
_GUESTS = ("qemu-system-x86", "systemd-container", "qemu-utils", "ovmf", "libarchive-tools")
_SCRIPTS = ("agent.py", "cpio.py", "image.py", "initrd.py", "sources.py")


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: a qcow2 without snapshots, kernel and initramfs to boot it (None: it needs none).

    `name` is the kind of system, under which what is made of it is kept; `key` changes with its contents.
    That of a boot chain boots from its disk (`from_disk`), with UEFI by the firmware `pflash`.
    """

    name: str
    key: str
    disk: Path
    kernel: Path
    initrd: Path | None
    ide_initrd: Path  # for an emulator without virtio
    from_disk: bool = False
    pflash: Pflash | None = None


def host_packages() -> tuple[str, ...]:
    """Return the Debian packages that this package needs on the host, besides python3."""
    return (
        "mmdebstrap", "debian-archive-keyring", "qemu-system-x86", "qemu-utils", "e2fsprogs", "kmod",
        "util-linux", "dpkg", "coreutils", "fdisk", "ovmf",
    )  # fmt: skip


def ensure(progress: Progress, suite: str = sources.BOOKWORM, chain: Chain | None = None) -> Image:
    """Return the image of Debian's release `suite`, built now (a minute) if it is not in the cache.

    With `chain` it boots from its disk, which takes two minutes more to build. Raises BuildError with the end
    of the builder's log.
    """
    cache.root().mkdir(parents=True, exist_ok=True)
    recipe = _planned(suite, chain, progress)
    made_of = [recipe.plan.versions(), suite, *_own_text(), *([chains.text(chain)] if chain else [])]
    key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()
    folder = cache.entry(
        f"image-{recipe.name}", key, lambda building: _build(building, recipe, progress), progress
    )
    return Image(
        recipe.name,
        key,
        folder / "disk.qcow2",
        folder / "vmlinuz",
        folder / "initrd.img",
        folder / "initrd-ide.img",
        chain is not None,
        Pflash.below(folder) if chain and chain.uefi else None,
    )


def _own_text() -> list[str]:
    baked = sorted(path for path in (_HERE / "baked").iterdir() if path.is_file())
    paths = [*(_HERE / name for name in _SCRIPTS), *baked]
    return [f"{path.name}\n{path.read_text()}" for path in paths]


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What an image is made of, and from where; `lists` as in sources.apt_options."""

    suite: str
    chain: Chain | None
    found: tuple[sources.Source, ...]
    lists: Path | None
    plan: sources.Plan

    @property
    def name(self) -> str:
        return f"{self.chain.name}-{self.suite}" if self.chain else self.suite


def _packages(chain: Chain | None) -> tuple[str, ...]:
    return _PACKAGES + (chain.packages if chain else _GUESTS)


def _planned(suite: str, chain: Chain | None, progress: Progress) -> _Recipe:
    """Ask apt, or remember what it said about the same package lists (it takes seconds)."""
    found = sources.of_host(suite=suite)
    lists = None if suite == sources.BOOKWORM else cache.root() / f"lists-{suite}"
    asked = [*_packages(chain), _KERNEL_PACKAGE]
    stamp = "\0".join([sources.lists_stamp(), *asked, *(source.line for source in found)])
    kind = f"plan-{chain.name}-{suite}" if chain else f"plan-{suite}"
    memory = cache.root() / f"{kind}-{hashlib.sha256(stamp.encode()).hexdigest()[:20]}.json"
    with cache.locked(kind, progress):
        if not memory.exists():
            progress(f"asking apt which packages Debian {suite}'s machine is made of")
            source_list = cache.root() / f"sources-{suite}.list"
            sources.write_list(found, source_list)
            plan = sources.plan(asked, source_list, lists)
            for old in cache.root().glob(f"{kind}-*.json"):
                old.unlink()
            fresh = memory.with_suffix(".new")
            fresh.write_text(json.dumps({"packages": plan.packages, "kernel": plan.kernel}))
            fresh.rename(memory)
        known = json.loads(memory.read_text())
    return _Recipe(suite, chain, found, lists, sources.Plan(tuple(known["packages"]), known["kernel"]))


def _build(building: Path, recipe: _Recipe, progress: Progress) -> None:
    _check_host(recipe.chain)
    log = cache.root() / f"build-{recipe.name}.log"
    log.unlink(missing_ok=True)
    system = building / "system"
    source_list = building / "sources.list"
    sources.write_list(recipe.found, source_list)
    _bootstrap(recipe, system, source_list, building, log, progress)
    release = _install_kernel(system, source_list, recipe, building, log, progress)

    progress("writing the initramfs of machine and guest")
    (building / "initrd.img").write_bytes(initrd.for_machine(system, release))
    (building / "initrd-ide.img").write_bytes(initrd.for_machine(system, release, initrd.IDE))
    guest = system / "usr/share/nestd-test/guest.cpio.gz"
    guest.parent.mkdir(parents=True)
    guest.write_bytes(initrd.for_guest(system, release))
    shutil.copy(system / f"boot/vmlinuz-{release}", building / "vmlinuz")

    if recipe.chain:
        progress("writing the initramfs of the disk")
        chains.prepare(recipe.chain, system, release, log)
    progress("writing the disk")
    raw = building / "disk.raw"
    with raw.open("wb") as disk:
        disk.truncate(_DISK_BYTES)
    target = chains.partition(recipe.chain, raw) if recipe.chain else [raw]
    builder.run(
        ["mke2fs", "-q", "-t", "ext4", "-J", "size=16", "-m", "0", "-L", "nestd-vm", "-d", system, *target],
        log,
    )
    builder.run(["qemu-img", "convert", "-q", "-O", "qcow2", raw, building / "disk.qcow2"], log)
    raw.unlink()
    cache.remove(system)
    if recipe.chain:
        chains.make_bootable(recipe.chain, building, release, progress)
    (building / "packages").write_text(recipe.plan.versions() + "\n")


def _check_host(chain: Chain | None) -> None:
    tools = ("mmdebstrap", "mke2fs", "qemu-img", "unshare", "chroot", "depmod", "dpkg-deb")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise VmError(f"{', '.join(missing)}: not installed", "Run tests/setup.")
    if os.geteuid() != 0:
        raise VmError("building the image needs root (it makes a tree with its owners)", "Run it as root.")
    if cache.free_bytes() < 4 << 30:
        raise VmError(f"{cache.root()}: less than 4 GiB free", "Set NESTD_CACHE to a folder with more room.")
    if chain:
        chains.check_host(chain)


def _bootstrap(
    recipe: _Recipe, system: Path, source_list: Path, building: Path, log: Path, progress: Progress
) -> None:
    settings = building / "apt.conf"
    settings.write_text(sources.carried_settings())
    command: list[str | Path] = [
        "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--architectures=amd64",
        f"--aptopt={settings}", "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=force-unsafe-io",
        f"--include={','.join(_packages(recipe.chain))}",
        f"--customize-hook=NESTD_VM='{_HERE}' '{_HERE}/baked/customize' \"$1\"",
        recipe.suite, system, source_list,
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
