# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real modprobe, asked about many configurations in one private mount namespace.

Each configuration is a tree with modprobe.d folders and a /proc/cmdline; its modules are a `kvm` and a
`kvm-amd` that need only be recognised by depmod.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

RELEASE = "6.1.0-nestd"
# What Debian's kmod is compiled to look into; /lib is /usr/lib.
FOLDERS = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d")
_MARK = "=== nestd "
_KVM = '.section __ksymtab_strings,"a"\n.asciz "kvm_init"\n.section .modinfo,"a"\n.asciz "license=GPL"\n'
_KVM_AMD = '.globl start\nstart: .quad kvm_init\n.section .modinfo,"a"\n.asciz "license=GPL"\n'


class Answer(NamedTuple):
    """What modprobe said of one configuration, each as its lines.

    `merged` is `modprobe -c`; `loading` what loading kvm_amd runs, `ignoring` the same with --ignore-install.
    """

    merged: list[str]
    loading: list[str]
    ignoring: list[str]


def make_modules(top: Path) -> None:
    """A /lib/modules/RELEASE below `top` with kvm and kvm-amd, which needs it."""
    folder = top / "lib/modules" / RELEASE / "kernel/arch/x86/kvm"
    folder.mkdir(parents=True)
    for name, text in (("kvm", _KVM), ("kvm-amd", _KVM_AMD)):
        command = ["gcc", "-x", "assembler", "-c", "-o", str(folder / f"{name}.ko"), "-"]
        subprocess.run(command, input=text.encode(), check=True, timeout=60)
    for name in ("modules.order", "modules.builtin"):
        (top / "lib/modules" / RELEASE / name).touch()
    subprocess.run(["depmod", "-b", str(top), RELEASE], check=True, timeout=60)


def ask(modules: Path, trees: Sequence[Path]) -> list[Answer]:
    """Ask about each of `trees`; `modules` is where make_modules was."""
    script = ["set -e", "mount -t tmpfs none /run", "mount -t tmpfs none /usr/local/lib"]
    for folder in FOLDERS:
        script.append(f"[ -d {folder} ] || mkdir {folder}; mount -t tmpfs none {folder}")
    script += [
        "[ -d /lib/modules ] || mkdir /lib/modules",
        f"mount --bind {shlex.quote(str(modules))}/lib/modules /lib/modules",
        "touch /run/cmdline; mount --bind /run/cmdline /proc/cmdline",
        f"for tree in {' '.join(shlex.quote(str(tree)) for tree in trees)}; do",
        f"  find {' '.join(FOLDERS)} -mindepth 1 -delete",
        f"  for folder in {' '.join(FOLDERS)}; do cp -a $tree$folder/. $folder/; done",
        "  cat $tree/proc/cmdline > /run/cmdline",
        f'  echo "{_MARK}"; modprobe -c',
        f'  echo "{_MARK}"; modprobe -S {RELEASE} --show-depends kvm_amd || true',
        f'  echo "{_MARK}"; modprobe -S {RELEASE} --show-depends --ignore-install kvm_amd || true',
        "done",
    ]
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    command = [*unshare, "sh", "-c", "\n".join(script)]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    parts = done.stdout.decode("utf-8", "surrogateescape").split(f"{_MARK}\n")[1:]
    assert len(parts) == 3 * len(trees)
    lines = [part.split("\n")[:-1] for part in parts]
    return [Answer(*lines[at : at + 3]) for at in range(0, len(lines), 3)]
