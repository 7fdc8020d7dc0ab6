# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian packages that an image lacks: fetched on the host, installed in a machine, which has no network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tests.vm import builder, cache, sources
from tests.vm.image import Image
from tests.vm.machine import Machine
from tests.vm.progress import Progress


def fetch(built: Image, wanted: Sequence[str], progress: Progress) -> list[Path]:
    """Return the .debs of `wanted` and of what they need that is not in the image, which is Debian 12's.

    They are of the same moment as the image, and kept in the cache. Raises BuildError with apt's words.
    """
    there = (built.disk.parent / "packages").read_text().split()
    source_list = cache.root() / f"sources-{built.name}-extras.list"
    sources.write_list(sources.of_host(suite=built.name), source_list)
    plan = sources.plan([*there, *wanted], source_list)
    missing = [package for package in plan.packages if package not in there]

    def make(folder: Path) -> None:
        progress(f"Debian: downloading {', '.join(wanted)} and what they need")
        # apt would drop to the user _apt, who may not write here.
        options = [*sources.apt_options(source_list), "-o", "APT::Sandbox::User=root"]
        log = cache.root() / f"build-{built.name}-extras.log"
        log.unlink(missing_ok=True)
        builder.run(["apt-get", "--quiet=2", *options, "download", *missing], log, cwd=folder)

    key = hashlib.sha256("\0".join(missing).encode()).hexdigest()
    return sorted(cache.entry(f"extras-{built.name}", key, make, progress).glob("*.deb"))


def install(machine: Machine, debs: Sequence[Path]) -> None:
    """Install them, all in one go, with dpkg's own defaults where a package would ask."""
    folder = machine.push(*debs, to="/var/tmp/extras")
    machine.sh(
        f"DEBIAN_FRONTEND=noninteractive dpkg --force-unsafe-io --install {folder}/*.deb; rm -r {folder}",
        timeout=480,
    )
