# SPDX-License-Identifier: LGPL-2.1-or-later
"""The floors of HACKING.md: imports go down only, and each library comes in by one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
FILES = sorted((TOP / "nestd").rglob("*.py"))

FLOORS = {
    "nestd": 0, "nestd.model": 0, "nestd.guestmodel": 0, "nestd.errors": 0, "nestd.log": 0,
    "nestd.loop": 0, "nestd.futures": 0, "nestd.tasks": 0, "nestd.sockets": 0, "nestd.turns": 0,
    "nestd.text": 1, "nestd.wire": 1,
    "nestd.host": 2,
    "nestd.nesting": 3, "nestd.guests": 3,
    "nestd.bus": 4,
    "nestd.fleet": 5,
    "nestd.notify": 5,
    "nestd.objects": 5,
    "nestd.service": 5,
    "nestd.__main__": 6,
}  # fmt: skip
BESIDE = "nestd.ctl"
# What the command line tool may have of the daemon: the version, the wire, and what the wire raises.
ITS_DOORS = {"nestd", "nestd.wire", "nestd.errors"}

DOORS = {
    "dbus_next": ["nestd/wire/"],
    "pyudev": ["nestd/host/udev.py"],
    "systemd": ["nestd/notify.py"],
    "subprocess": ["nestd/host/commands.py", "nestd/ctl/"],
    "asyncio": [],
    "dataclasses": [],
    "multiprocessing": [],
    "pty": [],
}
STARTS_A_PROCESS = (
    "create_subprocess", "subprocess_exec", "subprocess_shell",
    "posix_spawn", "spawnv", "spawnl", "fork", "execv", "execl", "popen",
)  # fmt: skip
NEEDED_LATER = (
    "pyudev", "gi", "importlib.metadata", "urllib", "xml", "http", "argparse", "dbus_next.aio",
    "asyncio", "concurrent", "dataclasses", "inspect", "logging", "pathlib", "ssl", "subprocess", "threading",
    "traceback",
)  # fmt: skip


def room(module: str) -> str:
    """The room or the single file of the ground floor that a module is in."""
    return ".".join(module.split(".")[:2])


def module_of(path: Path) -> str:
    parts = list(path.relative_to(TOP).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of the file, also inside functions, with its line; `from a import b` is `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = path.relative_to(TOP).with_suffix("").parts[: -node.level] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def target_room(name: str) -> str:
    """The room of `nestd.x.y`; what `from nestd import __version__` takes is in `nestd` itself."""
    found = room(name)
    return found if found in FLOORS or found == BESIDE else "nestd"


def goes_down(importer: str, imported: str) -> bool:
    if importer == BESIDE:
        return imported == BESIDE or imported in ITS_DOORS
    if imported == BESIDE:
        return False
    # The files of the ground floor and of the top one are no rooms: they may use each other.
    files = FLOORS[importer] == FLOORS[imported] in (0, 5)
    return importer == imported or files or FLOORS[importer] > FLOORS[imported]


def test_every_room_is_on_a_floor() -> None:
    assert FILES
    assert {room(module_of(path)) for path in FILES} <= {*FLOORS, BESIDE}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TOP)))
def test_imports_go_down_only(path: Path) -> None:
    importer = room(module_of(path))
    wrong = [
        f"{path.relative_to(TOP)}:{line}: {importer} must not import {name}"
        for line, name in imports(path)
        if name.partition(".")[0] == "nestd" and not goes_down(importer, target_room(name))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TOP)))
def test_libraries_come_in_by_their_doors(path: Path) -> None:
    relative = str(path.relative_to(TOP))
    wrong = [
        f"{relative}:{line}: {name} belongs in {DOORS[name.partition('.')[0]]}"
        for line, name in imports(path)
        if name.partition(".")[0] in DOORS and not relative.startswith(tuple(DOORS[name.partition(".")[0]]))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TOP)))
def test_processes_are_started_in_one_place(path: Path) -> None:
    relative = str(path.relative_to(TOP))
    if relative.startswith(tuple(DOORS["subprocess"])):
        return
    wrong = [
        f"{relative}:{node.lineno}: {node.attr}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith(STARTS_A_PROCESS)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_rule_itself() -> None:
    assert goes_down("nestd.bus", "nestd.wire") and goes_down("nestd.text", "nestd.errors")
    assert not goes_down("nestd.text", "nestd.wire")
    assert not goes_down("nestd.nesting", "nestd.guests")
    assert not goes_down("nestd.host", "nestd.bus")
    assert not goes_down("nestd.ctl", "nestd.model") and goes_down("nestd.ctl", "nestd.wire")
    assert not goes_down("nestd.service", "nestd.ctl")
    assert target_room("nestd.__version__") == "nestd" and target_room("nestd.host.root.Root") == "nestd.host"


@pytest.mark.parametrize("module", ["nestd.service", "nestd.bus.manager"])
def test_start_up_imports_only_what_start_up_needs(module: str) -> None:
    script = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=TOP, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert not [name for name in loaded for late in NEEDED_LATER if f"{name}.".startswith(f"{late}.")]
