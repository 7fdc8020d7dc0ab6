# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies of what a tool makes anew: put back byte for byte, made once, gone when nobody needs them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nestd.errors import ToolFailed
from nestd.host.commands import Commands
from nestd.host.machine import Host
from nestd.nesting import kept
from tests.nesting.machines import Machine
from tests.support import loop
from tests.support.tree import Tree

IMAGE, ODD, NEW = "/boot/initrd.img-6.1", "/boot/efi/a%2F b", "/boot/new"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    tree = Tree(tmp_path).write(IMAGE, "old image").write(ODD, "odd")
    return Machine.of(tree).host._replace(commands=Commands("/usr/bin:/bin"))


def change(host: Host) -> None:
    for path in (IMAGE, ODD, NEW):
        Path(host.root.path(path)).write_text("from the tool")


def test_byte_for_byte_and_as_it_was(host: Host) -> None:
    image = Path(host.root.path(IMAGE))
    image.write_bytes(os.urandom(3 << 20))
    image.chmod(0o600)
    os.utime(image, ns=(1, 1_000_000_000))
    before = image.read_bytes(), image.stat().st_mode, image.stat().st_mtime_ns
    paths = (IMAGE, ODD, NEW)
    loop.run(kept.keep(host, paths))
    assert kept.same(host, paths)
    change(host)
    assert not kept.same(host, paths)
    # Once more, as after a crash: what there was before is what counts.
    loop.run(kept.keep(host, paths))
    for _ in range(2):
        loop.run(kept.put_back(host, paths))
        assert (image.read_bytes(), image.stat().st_mode, image.stat().st_mtime_ns) == before
        assert Path(host.root.path(ODD)).read_text() == "odd"
        assert not host.root.exists(NEW)
        assert kept.same(host, paths)
    assert {name.name for name in image.parent.iterdir()} == {"initrd.img-6.1", "efi"}
    kept.forget(host)
    assert host.root.names(kept.FOLDER) == ()
    kept.forget(host)


def test_what_was_not_kept_is_not_touched(host: Host) -> None:
    """The tool runs only after its files were copied."""
    loop.run(kept.keep(host, (ODD,)))
    change(host)
    loop.run(kept.put_back(host, (IMAGE, ODD)))
    assert Path(host.root.path(IMAGE)).read_text() == "from the tool"
    assert Path(host.root.path(ODD)).read_text() == "odd"
    assert kept.same(host, (IMAGE, ODD))


def test_a_copy_that_is_half_made_is_none(host: Host) -> None:
    half = Path(host.root.path(kept.FOLDER))
    half.mkdir(parents=True)
    (half / "%2Fboot%2Finitrd.img-6.1.new").write_text("old i")
    loop.run(kept.keep(host, (IMAGE,)))
    change(host)
    loop.run(kept.put_back(host, (IMAGE,)))
    assert Path(host.root.path(IMAGE)).read_text() == "old image"


def test_no_room_for_the_copy_is_told_before_the_tool_runs(host: Host, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "cp").write_text("#!/bin/sh\necho 'cp: error writing: No space left on device' >&2\nexit 1\n")
    (tools / "cp").chmod(0o755)
    full = host._replace(commands=Commands(f"{tools}:/usr/bin:/bin"))
    with pytest.raises(ToolFailed, match="No space left"):
        loop.run(kept.keep(full, (IMAGE,)))
    assert kept.same(host, (IMAGE,))
