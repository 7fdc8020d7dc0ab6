# SPDX-License-Identifier: LGPL-2.1-or-later
"""packaging/ansible's role: ansible-playbook on a local connection, with the real daemon and nestctl.

Packages and units are left out (nestd_install, nestd_service): this is no machine to install on.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.daemon.conftest import bus, daemon, root, tools, tree  # the same machine
from tests.support.clients import Client
from tests.support.daemon import TOP, Daemon
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

__all__ = ["bus", "daemon", "root", "tools", "tree"]

pytestmark = pytest.mark.bus

ROLES = TOP / "packaging/ansible"
LIMIT = 1200.0  # seconds; only a hang takes so long
ZZ = "/etc/modprobe.d/zz-nestd.conf"
CONF = "/etc/nestd/nestd.conf.d"
NESTCTL = f"""#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
export PYTHONPATH={TOP}
exec {sys.executable} -m nestd.ctl --bus="$NESTD_BUS" "$@"
"""


class Play(NamedTuple):
    """What the role is told, without `nestd_`, and what is to come of it.

    That is how many tasks say that they changed something, and what is in the fact nestd_status.
    """

    told: Mapping[str, object]
    changed: int
    status: Mapping[str, object]
    check: bool = False


class Ansible:
    """Plays the role on this machine, which finds nestctl on its PATH."""

    def __init__(self, folder: Path, bus: PrivateBus, tree: Tree) -> None:
        self._folder = folder
        self._tree = tree
        (folder / "bin").mkdir()
        (folder / "bin/nestctl").write_text(NESTCTL)
        (folder / "bin/nestctl").chmod(0o755)
        self._environment = bus.environment | {
            "PATH": f"{folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "NESTD_BUS": bus.address,
            "HOME": str(folder),
            "ANSIBLE_ROLES_PATH": str(ROLES),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            "LC_ALL": "C.UTF-8",
        }
        self._environment.pop("PYTHONPATH", None)

    def run(self, *plays: Play) -> str:
        """Play them in one run, which must end well; and see that each came to what it was to."""
        done = self._run(plays)
        assert done.returncode == 0, done.stdout
        _, *parts = re.split(r"^PLAY \[", done.stdout.partition("PLAY RECAP")[0], flags=re.MULTILINE)
        for number, (play, part) in enumerate(zip(plays, parts, strict=True)):
            assert part.count("\nchanged: [localhost]") == play.changed, (play, part)
            status = json.loads(self._kept(number).read_text())
            assert {key: status[key] for key in play.status} == play.status, (play, part)
        return done.stdout

    def fail(self, *plays: Play) -> str:
        """Play them; the last fails, and what is said then."""
        done = self._run(plays)
        assert done.returncode != 0 and self._kept(len(plays) - 2).exists() is (len(plays) > 1), done.stdout
        assert not self._kept(len(plays) - 1).exists()
        return done.stdout

    def _kept(self, number: int) -> Path:
        return self._folder / f"status-{number}.json"

    def _run(self, plays: Sequence[Play]) -> subprocess.CompletedProcess[str]:
        for number in range(len(plays)):
            self._kept(number).unlink(missing_ok=True)
        here = {"install": False, "service": False, "conf_folder": str(self._tree.path(CONF))}
        playbook = self._folder / "playbook.yml"
        playbook.write_text(
            yaml.safe_dump(
                [
                    {
                        "name": f"play {number}",
                        "hosts": "localhost",
                        "connection": "local",
                        "gather_facts": False,
                        "check_mode": play.check,
                        "vars": {"ansible_python_interpreter": "/usr/bin/python3"},
                        "roles": [
                            {
                                "role": "nestd",
                                **{f"nestd_{key}": value for key, value in {**here, **play.told}.items()},
                            }
                        ],
                        "post_tasks": [self._keep(number)],
                    }
                    for number, play in enumerate(plays)
                ]
            )
        )
        return subprocess.run(
            ["/usr/bin/ansible-playbook", "--inventory=localhost,", playbook],
            env=self._environment,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LIMIT,
        )

    def _keep(self, number: int) -> dict[str, object]:
        copy = {"dest": str(self._kept(number)), "content": "{{ nestd_status | to_json }}", "mode": "0600"}
        return {"name": "keep", "ansible.builtin.copy": copy, "check_mode": False, "changed_when": False}


@pytest.fixture
def ansible(tmp_path: Path, bus: PrivateBus, tree: Tree) -> Ansible:
    folder = tmp_path / "controller"
    folder.mkdir()
    return Ansible(folder, bus, tree)


def test_each_is_done_once_and_in_check_mode_not_at_all(ansible: Ansible, root: Client, tree: Tree) -> None:
    tree.write(f"{CONF}/90-mine.conf", "[Boot]\nLoader=auto\n")
    off, back = {"nesting": "disabled"}, {"nesting": "reverted"}
    on = {"nesting": "enabled", "scope": "runtime"}
    conf = {"conf": {"Nesting": {"Enforce": False}, "Export": {"PrometheusTextfile": "/srv/nestd.prom"}}}
    untouched = {"nested": "on", "nested-at-boot": "on", "policy": "unmanaged"}
    is_off = {"nested": "off", "nested-at-boot": "off", "policy": "off"}
    words = ansible.run(
        Play({}, 0, untouched),
        Play(off, 1, untouched, check=True),
        Play(off, 1, is_off),
        Play(off, 0, is_off),
        Play(on, 1, {"nested": "on", "nested-at-boot": "off"}),
        Play(back, 1, {"nested-at-boot": "on"}),
        Play(back, 0, {"nested-at-boot": "on"}),
        Play(conf, 1, {}),
        Play(conf, 0, {}),
    )
    assert "failed=0" in words
    assert not tree.root.exists(ZZ)
    lines = tree.read(f"{CONF}/50-ansible.conf").splitlines()
    said = [line for line in lines if not line.startswith("#")]
    assert said == ["[Export]", "PrometheusTextfile=/srv/nestd.prom", "[Nesting]", "Enforce=no"]
    # Where there is no folder yet, check mode does not stumble over it.
    new = str(tree.path("/etc/nestd/new.d"))
    ansible.run(Play({}, 1, {}), Play({**conf, "conf_folder": new}, 2, {}, check=True))
    assert not tree.root.exists("/etc/nestd/new.d")
    assert [path.name for path in tree.path(CONF).iterdir()] == ["90-mine.conf"]


def test_in_use_it_waits_once_or_fails(ansible: Ansible, root: Client, tree: Tree) -> None:
    tree.replace("/sys/module/kvm_amd/refcnt", "1\n")
    idle = {"nesting": "disabled", "when_idle": True}
    waits = {"nested": "on", "pending-change": "off"}
    ansible.run(Play(idle, 1, waits), Play(idle, 0, waits), Play({**idle, "scope": "runtime"}, 1, waits))
    words = ansible.fail(Play({}, 0, {}), Play({"nesting": "disabled"}, 0, {}))
    assert "InUse" in words


def test_where_it_cannot_be_had(ansible: Ansible, bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    tree.amd(flags="fpu sse2 lm").gone("/sys/module/kvm_amd")
    on = {"nesting": "enabled"}
    with Daemon(bus, tree):
        words = ansible.fail(Play({**on, "unsupported_ok": True}, 0, {}), Play(on, 0, {}))
    assert "no-extension" in words


def test_what_it_takes_is_checked(ansible: Ansible, root: Client) -> None:
    words = ansible.fail(Play({"nesting": "on"}, 0, {}))
    assert "value of nestd_nesting must be one of" in words


def test_every_variable_is_described_and_has_its_default() -> None:
    described = yaml.safe_load((ROLES / "nestd/meta/argument_specs.yml").read_text())
    options = described["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((ROLES / "nestd/defaults/main.yml").read_text())
    assert {name: option["default"] for name, option in options.items()} == defaults
    assert all(option["description"] for option in options.values())


def test_the_readme_speaks_of_variables_that_there_are() -> None:
    text = (ROLES / "README.md").read_text()
    named = set(re.findall(r"\bnestd_[a-z_]+", text)) - {"nestd_status"}
    defaults = yaml.safe_load((ROLES / "nestd/defaults/main.yml").read_text())
    assert named and named <= set(defaults)
    [play] = yaml.safe_load("\n".join(re.findall(r"^    (.*)$", text, re.MULTILINE)))
    assert play["roles"][0]["nestd_nesting"] == "disabled"


def test_what_runs_it_is_there() -> None:
    done = subprocess.run(
        ["/usr/bin/ansible-playbook", "--version"], capture_output=True, text=True, check=True, timeout=LIMIT,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    version = re.search(r"core (\d+)\.(\d+)", done.stdout)
    assert version and (int(version[1]), int(version[2])) >= (2, 14)
