# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine's disk: Debian from its packages, no loop device, kept until what it is made of changes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm import cache, initrd, sources
from tests.vm.problem import BuildError, VmError
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
    """A built image: the key it is cached by, a qcow2 without snapshots, kernel and initramfs to boot it."""

    key: str
    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"


def host_packages() -> tuple[str, ...]:
    """Return the Debian packages that this package needs on the host, besides python3."""
    return (
        "mmdebstrap", "debian-archive-keyring", "qemu-system-x86", "qemu-utils", "e2fsprogs", "kmod",
        "util-linux", "dpkg", "coreutils",
    )  # fmt: skip


def ensure(progress: Progress) -> Image:
    """Return the image, built now (a minute) if it is not in the cache.

    Raises BuildError with the end of the builder's log.
    """
    cache.root().mkdir(parents=True, exist_ok=True)
    found = sources.of_host()
    plan = _planned(found, progress)
    key = hashlib.sha256("\0".join([plan.versions(), sources.SUITE, *_own_text()]).encode()).hexdigest()
    folder = cache.entry("image", key, lambda building: _build(building, found, plan, progress), progress)
    return Image(key, folder)


def _own_text() -> list[str]:
    paths = [*(_HERE / name for name in _SCRIPTS), *sorted((_HERE / "baked").iterdir())]
    return [f"{path.name}\n{path.read_text()}" for path in paths]


def _planned(found: Sequence[sources.Source], progress: Progress) -> sources.Plan:
    """Ask apt, or remember what it said about the same package lists (it takes seconds)."""
    source_list = cache.root() / "sources.list"
    sources.write_list(found, source_list)
    asked = [*_PACKAGES, _KERNEL_PACKAGE]
    stamp = "\0".join([sources.lists_stamp(), *asked, *(source.line for source in found)])
    memory = cache.root() / f"plan-{hashlib.sha256(stamp.encode()).hexdigest()[:20]}.json"
    if memory.exists():
        known = json.loads(memory.read_text())
        return sources.Plan(tuple(known["packages"]), known["kernel"])
    progress("asking apt which packages the machine is made of")
    plan = sources.plan(asked, source_list)
    for old in cache.root().glob("plan-*.json"):
        old.unlink(missing_ok=True)
    fresh = memory.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps({"packages": plan.packages, "kernel": plan.kernel}))
    fresh.rename(memory)
    return plan


def _build(building: Path, found: Sequence[sources.Source], plan: sources.Plan, progress: Progress) -> None:
    _check_host()
    log = cache.root() / "build.log"
    log.unlink(missing_ok=True)
    system = building / "system"
    source_list = building / "sources.list"
    sources.write_list(found, source_list)
    _bootstrap(system, source_list, building, log, progress)
    release = _install_kernel(system, source_list, plan, building, log, progress)

    progress("writing the initramfs of machine and guest")
    (building / "initrd.img").write_bytes(initrd.for_machine(system, release))
    guest = system / "usr/share/nestd-test/guest.cpio.gz"
    guest.parent.mkdir(parents=True)
    guest.write_bytes(initrd.for_guest(system, release))
    shutil.copy(system / f"boot/vmlinuz-{release}", building / "vmlinuz")

    progress("writing the disk")
    raw = building / "disk.raw"
    with raw.open("wb") as disk:
        disk.truncate(_DISK_BYTES)
    _run(["mke2fs", "-q", "-t", "ext4", "-J", "size=16", "-m", "0", "-L", "nestd-vm", "-d", system, raw], log)
    _run(["qemu-img", "convert", "-q", "-O", "qcow2", raw, building / "disk.qcow2"], log)
    raw.unlink()
    cache.remove(system)
    (building / "packages").write_text(plan.versions() + "\n")


def _check_host() -> None:
    tools = ("mmdebstrap", "mke2fs", "qemu-img", "unshare", "chroot", "depmod", "dpkg-deb")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise VmError(f"{', '.join(missing)}: not installed", "Run tests/setup.")
    if os.geteuid() != 0:
        raise VmError("building the image needs root (it makes a tree with its owners)", "Run it as root.")
    if cache.free_bytes() < 4 << 30:
        raise VmError(f"{cache.root()}: less than 4 GiB free", "Set NESTD_CACHE to a folder with more room.")


def _bootstrap(system: Path, source_list: Path, building: Path, log: Path, progress: Progress) -> None:
    settings = building / "apt.conf"
    settings.write_text(sources.carried_settings())
    command: list[str | Path] = [
        "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--architectures=amd64",
        f"--aptopt={settings}", "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=force-unsafe-io",
        f"--include={','.join(_PACKAGES)}",
        f"--customize-hook=NESTD_VM='{_HERE}' '{_HERE}/baked/customize' \"$1\"",
        sources.SUITE, system, source_list,
    ]  # fmt: skip
    _run(command, log, lambda line: _tell(line, progress))


def _tell(line: str, progress: Progress) -> None:
    """Pass on those of mmdebstrap's words that name a phase."""
    phase = line.removeprefix("I: ")
    if phase != line and phase.startswith(("running apt-get", "downloading", "extracting", "installing")):
        progress(f"Debian: {phase.rstrip('.')}")


def _install_kernel(
    system: Path, source_list: Path, plan: sources.Plan, building: Path, log: Path, progress: Progress
) -> str:
    """Unpack the kernel's package into `system`: to install it would bring an initramfs nobody needs.

    Returns the kernel's release.
    """
    progress(f"Debian: {plan.kernel}")
    version = next(line for line in plan.packages if line.startswith(f"{plan.kernel}="))
    # apt would drop to the user _apt, who may not write here.
    options = [*sources.apt_options(source_list), "-o", "APT::Sandbox::User=root"]
    _run(["apt-get", "--quiet=2", *options, "download", version], log, cwd=building)
    (package,) = building.glob("linux-image-*.deb")
    unpacked = building / "kernel"
    _run(["dpkg-deb", "--extract", package, unpacked], log)
    release = plan.kernel.removeprefix("linux-image-")
    shutil.move(unpacked / "lib/modules", system / "usr/lib/modules")
    for path in (unpacked / "boot").iterdir():
        if not path.name.startswith("System.map"):
            shutil.move(path, system / "boot" / path.name)
    (system / "boot/vmlinuz").symlink_to(f"vmlinuz-{release}")
    (system / f"boot/vmlinuz-{release}").chmod(0o644)
    _run(["depmod", "--basedir", system, release], log)
    cache.remove(unpacked)
    package.unlink()
    return release


def _run(
    command: Sequence[str | Path], log: Path, said: Progress = lambda _line: None, cwd: Path | None = None
) -> None:
    """Run a builder in namespaces of its own: its mounts and processes can neither outlive it nor be seen."""
    fence = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("a") as file:
        print(f"+ {' '.join(map(str, command))}", file=file, flush=True)
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "--", *fence, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            cwd=cwd,
        )
        with process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    file.write(line)
                    said(line.rstrip())
            except BaseException:
                process.kill()
                raise
    if process.returncode != 0:
        end = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-25:])
        raise BuildError(f"{command[0]} ended with {process.returncode}:\n{end}", f"The whole log: {log}")
