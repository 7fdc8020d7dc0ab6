# SPDX-License-Identifier: LGPL-2.1-or-later
"""A system of ostree as the machine's own ostree makes it: a repository, a deployment, its boot loader entry.

    Deployed(tmp_path, "root=LABEL=x", "quiet")      # .tree is the system's root, .machine acts on it

nestd's commands have no --sysroot=, so `ostree` on its PATH is a wrapper that sets OSTREE_SYSROOT.
Without mutable-deployments the deployment would be immutable, and the test's folder could not be removed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from nestd.host.commands import Completed
from nestd.nesting.steps import Run, Step
from tests.nesting.machines import Machine
from tests.support import loop
from tests.support.tree import RELEASE, Tree

OSTREE = "/usr/bin/ostree"
_LONG = 1000  # times 10 ms
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "OSTREE_SYSROOT_DEBUG": "mutable-deployments"}


def _reap() -> None:
    """Wait for what ostree's gpg has left behind: it comes to the tests, as they adopt orphans."""
    with suppress(ChildProcessError):
        for _ in range(_LONG):
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.01)


class Deployed:
    """One deployment, booted as far as nestd can see."""

    def __init__(self, top: Path, *words: str) -> None:
        self.top = top / "system"
        content = top / "content"
        modules = content / f"usr/lib/modules/{RELEASE}"
        modules.mkdir(parents=True)
        (modules / "vmlinuz").write_text("kernel")
        (modules / "initramfs.img").write_text("initramfs")
        for name in ("usr/etc", "sysroot", "boot", "run", "proc", "dev", "tmp", "var"):
            (content / name).mkdir()
        for name in ("bin", "lib", "lib64", "sbin"):
            (content / name).symlink_to(f"usr/{name}")
        (content / "ostree").symlink_to("sysroot/ostree")
        (content / "usr/lib/os-release").write_text('ID=debian\nPRETTY_NAME="Debian GNU/Linux 12"\n')
        (content / "usr/etc/os-release").symlink_to("../lib/os-release")
        self.top.mkdir()
        self.call("admin", "init-fs", "--modern", str(self.top))
        self.call("admin", "os-init", f"--sysroot={self.top}", "debian")
        self.call(
            f"--repo={self.top}/ostree/repo",
            "commit",
            "--owner-uid=0",
            "--owner-gid=0",
            "-b",
            "os",
            str(content),
        )
        self.deploy()
        self.set(*words)
        self.tree = Tree(self.top).amd().module("kvm_amd").write("/run/ostree-booted", "")
        self.machine = Machine.of(self.tree)
        self.install("ostree", f'export OSTREE_SYSROOT={self.top}\nexec {OSTREE} "$@"')

    @property
    def options(self) -> str:
        """The first entry's options, less the deployment that they boot."""
        entries = sorted((self.top / "boot/loader/entries").glob("ostree-*.conf"))
        [line] = [line for line in entries[-1].read_text().splitlines() if line.startswith("options ")]
        return " ".join(word for word in line.split(" ")[1:] if not word.startswith("ostree="))

    def call(self, *arguments: str) -> str:
        """ostree itself."""
        done = subprocess.run(
            [OSTREE, *arguments], env=ENVIRONMENT, capture_output=True, check=False, text=True
        )
        _reap()
        assert done.returncode == 0, done.stderr
        return done.stdout

    def deploy(self, *options: str) -> None:
        """One more deployment, which becomes the first."""
        self.call("admin", "deploy", f"--sysroot={self.top}", "--os=debian", *options, "os")

    def set(self, *words: str) -> None:
        """Somebody sets the first deployment's arguments."""
        given = (f"--append={word}" for word in words)
        self.call("admin", "instutil", "set-kargs", f"--sysroot={self.top}", *given)

    def install(self, name: str, body: str) -> None:
        """A program on nestd's PATH."""
        path = self.machine.tools.folder / name
        path.write_text(f"#!/bin/sh\nexport OSTREE_SYSROOT_DEBUG=mutable-deployments\n{body}\n")
        path.chmod(0o755)

    def carry_out(self, *steps: Step) -> None:
        """Run the steps as nestd does."""
        for step in steps:
            assert isinstance(step, Run)
            self.run(*step.argv)

    def run(self, *argv: str) -> Completed:
        done = loop.run(self.machine.host.commands.run(*argv))
        _reap()
        assert done.code == 0, done.err
        return done

    def script(self, lines: str) -> None:
        """Run lines of /var/lib/nestd/undo, in which the boot loader's folder is this system's."""
        lines = lines.replace("/boot/", f"{self.top}/boot/")
        path = f"{self.machine.tools.folder}:/usr/bin:/bin"
        subprocess.run(["sh", "-eu", "-c", lines], env={"PATH": path}, check=True)
        _reap()

    def stage(self, *words: str) -> bytes:
        """What ostree writes when it stages a deployment with these arguments, from inside the system."""
        [booted] = (self.top / "ostree/deploy/debian/deploy").glob("*.0")
        kargs = shlex.join(f"--karg-append={word}" for word in words)
        lines = f"""
            mount --make-rprivate /
            mount --bind {booted} {booted}
            cd {booted}
            mount --rbind /usr usr
            mount --bind {self.top} sysroot
            mount --bind {self.top}/boot boot
            mount -t tmpfs none run
            mount -t tmpfs none tmp
            mount -t proc none proc
            mount --bind /dev dev
            touch run/ostree-booted
            printf '#!/bin/sh\\n' > tmp/systemctl
            chmod +x tmp/systemctl
            chroot . env PATH=/tmp:/usr/sbin:/usr/bin ostree admin deploy --stage --os=debian {kargs} os >&2
            cat run/ostree/staged-deployment
        """
        done = subprocess.run(
            ["unshare", "-m", "-p", "-f", "sh", "-eu", "-c", lines],
            env=ENVIRONMENT,
            capture_output=True,
            check=False,
        )
        _reap()
        assert done.returncode == 0, done.stderr
        return done.stdout
