# SPDX-License-Identifier: LGPL-2.1-or-later
"""Packages built, opened, and compared."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

TREE = Path(__file__).parents[2]

# Where each system has its Python's modules.
_MODULES = re.compile(r"usr/lib/python3(?:\.\d+)?/(?:dist|site)-packages/")


def copy(tree: Path, to: Path) -> Path:
    """A copy without git, in another place, with other times: only what is in the files may count."""
    ignored = shutil.ignore_patterns(".*", "dist", "build", "__pycache__")
    return Path(shutil.copytree(tree, to, symlinks=True, ignore=ignored, copy_function=shutil.copy))


def run(*argv: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A tool, whatever it ends with."""
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300, cwd=cwd)


def build(tree: Path, script: str, *options: str | Path) -> Path:
    """What packaging/SCRIPT of that tree makes: its path is the last line that it prints."""
    # In a namespace of its own, whose end is the end of what fakeroot leaves behind.
    done = run("unshare", "--pid", "--fork", "--mount-proc", tree / "packaging" / script, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(done.stdout.splitlines()[-1])


def build_wheel(tree: Path, into: Path) -> Path:
    """The wheel, by the distribution's own hatchling."""
    done = run("/usr/bin/python3", "-m", "hatchling", "build", "-t", "wheel", "-d", into, cwd=tree)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = into.glob("*.whl")
    return wheel


def unpack(package: Path, folder: Path) -> Path:
    """All that is in a package, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if package.suffix == ".deb":
        done = run("dpkg-deb", "--raw-extract", package, folder)
    elif package.suffix == ".whl":
        done = run("/usr/bin/python3", "-m", "zipfile", "-e", package, folder)
    else:
        done = run("bsdtar", "-C", folder, "-xpf", package)
    assert done.returncode == 0, done.stderr
    return folder


def files(folder: Path) -> set[str]:
    """The paths of all files below."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def on_debian(path: str) -> str:
    """Where Debian 13 has what another system, or the wheel, has there."""
    place = _MODULES.sub("usr/lib/python3/dist-packages/", path)
    if place.startswith("lib/"):
        place = f"usr/{place}"
    if place == "usr/bin/nestd":
        place = "usr/sbin/nestd"
    return place.replace("usr/share/zsh/site-functions/", "usr/share/zsh/vendor-completions/")


def installed(unpacked: Path) -> dict[str, bytes]:
    """What an unpacked package brings, by where it would be on Debian 13: systems differ in folders and gzip.

    Without bytecode, which is made where the package is built or installed, and what pip keeps.
    """
    found = {}
    for path in sorted(files(unpacked)):
        # What dpkg, and what pacman, keeps of a package for itself.
        if path.startswith(("DEBIAN/", ".")) or "/__pycache__/" in path or ".dist-info/" in path:
            continue
        place = on_debian(path)
        data = (unpacked / path).read_bytes()
        if place.endswith(".gz"):
            place, data = place.removesuffix(".gz"), gzip.decompress(data)
        found[place] = data
    return found
