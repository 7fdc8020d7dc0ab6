# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel for the emulated machine with KVM and both x86 drivers built in, made of kernel.config."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.vm import builder, cache
from tests.vm.problem import BuildError, VmError
from tests.vm.progress import Progress

_HERE = Path(__file__).parent
_CONFIG = _HERE / "kernel.config"
_SERIES = "6.1"
_ARCHIVE = Path(f"/usr/src/linux-source-{_SERIES}.tar.xz")
# Below lib/modules/RELEASE: modprobe knows from these what is built in.
LISTS = ("modules.builtin", "modules.builtin.modinfo")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A built kernel: the key it is cached by, its release, its image, and its lists of what is built in."""

    key: str
    release: str
    image: Path
    lists: tuple[Path, ...]


def host_packages() -> tuple[str, ...]:
    """Return the Debian packages that this needs on the host."""
    return (f"linux-source-{_SERIES}", "bc", "bison", "flex", "gcc", "libelf-dev", "make", "xz-utils")


def ensure(progress: Progress) -> Kernel:
    """Return the kernel, compiled now (about ten minutes of one processor) if it is not in the cache.

    Raises BuildError with the compiler's last words, or with the options that Kconfig dropped.
    """
    key = hashlib.sha256("\0".join(_ingredients()).encode()).hexdigest()
    folder = cache.entry("kernel", key, lambda building: _build(building, progress), progress)
    release = (folder / "release").read_text().strip()
    return Kernel(key, release, folder / "vmlinuz", tuple(folder / name for name in LISTS))


def _ingredients() -> list[str]:
    if not _ARCHIVE.exists() or shutil.which("flex") is None or shutil.which("bison") is None:
        raise VmError(
            "the kernel's source, or what compiles it, is not installed",
            f"`apt-get install {' '.join(host_packages())}`.",
        )
    source = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", f"linux-source-{_SERIES}"], check=True, capture_output=True
    )
    compiler = subprocess.run(["gcc", "--version"], check=True, capture_output=True)
    return [source.stdout.decode(), compiler.stdout.decode().splitlines()[0], _CONFIG.read_text()]


def _build(building: Path, progress: Progress) -> None:
    if cache.free_bytes() < 3 << 30:
        raise VmError(f"{cache.root()}: less than 3 GiB free", "Set NESTD_CACHE to a folder with more room.")
    log = cache.root() / "build-kernel.log"
    log.unlink(missing_ok=True)
    progress("unpacking the kernel's source")
    builder.run(["tar", "--extract", "--file", _ARCHIVE, "--directory", building], log)
    source = building / f"linux-source-{_SERIES}"
    output = building / "output"
    output.mkdir()
    make: list[str | Path] = ["make", "-s", "-C", source, f"O={output}"]
    builder.run([*make, f"KCONFIG_ALLCONFIG={_CONFIG}", "allnoconfig"], log)
    if dropped := _dropped((output / ".config").read_text()):
        raise BuildError(f"Kconfig dropped {', '.join(dropped)}", "Something that they depend on is missing.")
    progress("compiling the kernel (minutes)")
    builder.run([*make, f"-j{os.cpu_count()}", "bzImage"], log)
    shutil.copy(output / "arch/x86/boot/bzImage", building / "vmlinuz")
    shutil.copy(output / "include/config/kernel.release", building / "release")
    for name in LISTS:
        shutil.copy(output / name, building / name)
    cache.remove(output)
    cache.remove(source)


def _dropped(config: str) -> list[str]:
    """Return the lines of kernel.config that the finished configuration has not."""
    found = set(config.splitlines())
    wanted = _CONFIG.read_text().splitlines()
    return [line for line in wanted if line.startswith("CONFIG_") and line not in found]
