# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real ssh to emulated machines: keys of its own, each machine's known before it first goes there."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from tests.vm.machine import Machine

_KINDS = ("ed25519", "ecdsa", "rsa")
# The address is the one that QEMU's user network expects its guest to have.
_NETWORK = """card=$(ls /sys/class/net | grep -vx lo)
ip link set "$card" up
ip address add 10.0.2.15/24 dev "$card"
"""


class Ssh:
    """Who enters machines as root; with nobody else's configuration, agent or keys; it keeps all in `folder`.

    StrictHostKeyChecking is the whole of the trust.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key("id")
        (folder / "known_hosts").touch()
        options = {
            "ControlMaster": "auto",
            "ControlPersist": "600",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "IdentityFile": folder / "id",
            "PreferredAuthentications": "publickey",
        }
        self.arguments = ("-F", "none", *(f"-o{key}={value}" for key, value in options.items()))

    def add(self, name: str, machine: Machine) -> int:
        """Prepare a machine, before sshd is installed in it; returns the port of 127.0.0.1 that leads there.

        It gets an address, keys of its own that are then known, and who may enter.
        """
        for kind in _KINDS:  # with none left to sshd's package, which would take long to make one
            host = self._key(f"{name}-{kind}", kind)
            machine.write(f"/etc/ssh/ssh_host_{kind}_key", host.read_bytes(), mode=0o600)
            machine.write(f"/etc/ssh/ssh_host_{kind}_key.pub", host.with_suffix(".pub").read_bytes())
        machine.write("/root/.ssh/authorized_keys", (self._folder / "id.pub").read_bytes(), mode=0o600)
        machine.sh(_NETWORK)
        port = machine.ssh_port
        with (self._folder / "known_hosts").open("a") as known:
            known.write(f"[127.0.0.1]:{port} {(self._folder / f'{name}-ed25519.pub').read_text()}")
        return port

    def on_path(self) -> str:
        """A PATH on which `ssh` is this one, for a program that runs it by its name."""
        program = self._folder / "bin/ssh"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec /usr/bin/ssh {shlex.join(self.arguments)} "$@"\n')
        program.chmod(0o755)
        return f"{program.parent}:/usr/sbin:/usr/bin:/sbin:/bin"

    def _key(self, name: str, kind: str = "ed25519") -> Path:
        path = self._folder / name
        command: list[str | Path] = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", path]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=os.environ | {"LC_ALL": "C.UTF-8"})
        return path
