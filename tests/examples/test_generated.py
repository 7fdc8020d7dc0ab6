# SPDX-License-Identifier: LGPL-2.1-or-later
"""gdbus-codegen on data/org.nestd1.xml: what it makes compiles, and its proxy works."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.examples.conftest import LIMIT, Run
from tests.examples.test_off import compiled, flags
from tests.support.clients import Client

pytestmark = pytest.mark.bus

TOP = Path(__file__).parents[2]
LIBRARIES = ["gio-2.0", "gio-unix-2.0"]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program tests/examples/generated.c with the code that was made."""
    folder = tmp_path_factory.mktemp("generated")
    codegen: list[str | Path] = ["gdbus-codegen", "--generate-c-code", "nestd-bus", "--c-namespace", "Nestd"]
    codegen += ["--c-generate-autocleanup", "all", "--interface-prefix", "org.nestd1."]
    done = subprocess.run(
        [*codegen, "--output-directory", folder, TOP / "data/org.nestd1.xml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    more: list[str | Path] = [folder / "nestd-bus.c", "-I", folder, "-Wno-unused-parameter"]
    libraries = [flag for library in LIBRARIES for flag in flags(library)]
    return compiled(Path(__file__).with_name("generated.c"), folder / "generated", *more, *libraries)


def test_the_proxy_works(run: Run, generated: Path, root: Client) -> None:
    done = run(generated)
    assert (done.returncode, done.stderr) == (0, "")
    first, result, error = done.stdout.splitlines()
    assert first == "on kvm_amd kernel default"
    assert "'changed': <true>" in result and "'nested': <'off'>" in result
    assert error == "org.nestd1.Error.GuestNotFound"
    assert root.get("Nested") == "off"
