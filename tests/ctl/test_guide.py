# SPDX-License-Identifier: LGPL-2.1-or-later
"""nested-kvm(7): every nestctl command that it shows is one."""

from __future__ import annotations

import re
import shlex
from contextlib import chdir
from pathlib import Path

import pytest

from nestd.ctl.arguments import parse

GUIDE = Path(__file__).parents[2] / "data/nested-kvm.7"
# Spoken of, without its options.
NAMED = "nestctl launch"


def shown() -> list[str]:
    """The commands, those of more than a line joined, and without what is said of them."""
    text = GUIDE.read_text().replace("\\e\n", " ").replace(".Nm nestctl ", "nestctl ").replace(".Fl -", "--")
    found = re.findall(r"^(?:\.Li )?(nestctl(?: [a-z-].*?)?)(?:  +#.*| ,| \.)?$", text, re.MULTILINE)
    return sorted(
        {" ".join(command.split()) for command in found if command not in ("nestctl", "nestctl launch")}
    )


@pytest.mark.parametrize("command", shown())
def test_it_is_understood(command: str, tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("#cloud-config\n")
    with chdir(tmp_path):
        given = parse(shlex.split(command)[1:])
    assert f"{command} ".startswith(f"nestctl {given.command} ")


def test_there_are_some() -> None:
    assert {"nestctl disable --when-idle", "nestctl holders", "nestctl diagnose"} <= set(shown())
