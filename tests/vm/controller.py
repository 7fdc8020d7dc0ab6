# SPDX-License-Identifier: LGPL-2.1-or-later
"""A fleet's controller: the real ansible-playbook, which reaches emulated machines with the real ssh."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.vm.machine import Machine
from tests.vm.ssh import Ssh

_ROLES = Path(__file__).parents[2] / "packaging/ansible"
_LIMIT = 1200.0  # seconds; only a hang takes so long
_RECAP = re.compile(r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+) ", re.MULTILINE)


class Recap(NamedTuple):
    """How it ended on one host: how many tasks changed something, and whether one failed.

    `status` is the fact nestd_status, as the controller has it; empty if the host did not get to the end.
    """

    changed: int
    failed: bool
    status: Mapping[str, Any]


class Controller:
    """Plays the role on the machines that it was given, which have sshd; all it keeps is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hosts: dict[str, dict[str, object]] = {}
        self._ssh = Ssh(folder)
        (folder / "ansible.cfg").touch()
        self._environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(_ROLES),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_TIMEOUT": "120",
            "ANSIBLE_SSH_ARGS": shlex.join(self._ssh.arguments),
            # The path of a socket is short.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "cp"),
        }

    def add(self, name: str, machine: Machine) -> None:
        """Prepare a machine, before sshd is installed in it."""
        self._hosts[name] = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self._ssh.add(name, machine),
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
        }

    def play(
        self, wishes: Mapping[str, Mapping[str, object]], *before: Mapping[str, object], check: bool = False
    ) -> tuple[dict[str, Recap], str]:
        """Play the role with each host's variables, after the tasks `before`; returns also all that was said.

        Variables are without their `nestd_`. AssertionError if a host cannot be reached.
        """
        for name in wishes:
            self._kept(name).unlink(missing_ok=True)
        hosts = {
            name: self._hosts[name] | {f"nestd_{key}": value for key, value in told.items()}
            for name, told in wishes.items()
        }
        keep = {
            "name": "Keep what is true",
            "ansible.builtin.copy": {
                "dest": f"{self._folder}/status-{{{{ inventory_hostname }}}}.json",
                "content": "{{ nestd_status | to_json }}",
                "mode": "0600",
            },
            "delegate_to": "localhost",
            "check_mode": False,
            "changed_when": False,
        }
        play = {
            "name": "nestd on the fleet",
            "hosts": "all",
            "gather_facts": False,
            "pre_tasks": list(before),
            "roles": [{"role": "nestd"}],
            "post_tasks": [keep],
        }
        (self._folder / "fleet.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
        (self._folder / "playbook.yml").write_text(yaml.safe_dump([play]))
        checking = ["--check"] if check else []
        done = subprocess.run(
            ["/usr/bin/ansible-playbook", "--inventory=fleet.yml", *checking, "playbook.yml"],
            env=self._environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_LIMIT,
        )
        print(done.stdout)
        found = {match[1]: match for match in _RECAP.finditer(done.stdout)}
        assert set(found) == set(wishes) and all(match[3] == "0" for match in found.values()), done.stdout
        failed = {name: match[4] != "0" for name, match in found.items()}
        assert any(failed.values()) is (done.returncode != 0)
        recaps = {
            name: Recap(int(match[2]), failed[name], self._status(name)) for name, match in found.items()
        }
        return recaps, done.stdout

    def _status(self, name: str) -> Mapping[str, Any]:
        kept = self._kept(name)
        return json.loads(kept.read_text()) if kept.exists() else {}

    def _kept(self, name: str) -> Path:
        return self._folder / f"status-{name}.json"
