# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the next boot reads, changed by files and long tools: killed at each moment, failing, and undone.

The tool here is any of them: it makes one file (grub.cfg, an initramfs) of others, and is found half-way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from nestd import errors
from nestd.host.commands import Commands, Completed
from nestd.host.machine import Host
from nestd.model import Scope
from nestd.nesting import change, dropin, kept, own, steps
from nestd.nesting.ledger import BOOT_ID, Ledger
from nestd.nesting.own import Own
from nestd.nesting.steps import Run, Step, Wish, WriteFile
from nestd.nesting.store import CHANGE
from tests.nesting.ground import (
    AMD,
    OFF,
    ON,
    Ground,
    Start,
    assert_settled,
    build,
    copy,
    counted,
    forked,
    kill_myself,
)
from tests.nesting.kernel import insert, remove
from tests.support import loop
from tests.support.tree import RELEASE, Tree

DEFAULTS, MADE, KEPT_BY_TOOL = "/etc/default/grub.d/zz-nestd.cfg", "/boot/grub/grub.cfg", "/boot/arguments"
TOOLS = {
    # Makes MADE of DEFAULTS, by a temporary or not as it likes; half of it is written first.
    "make-anew": 'cd "$TOP"; echo "made of:" > boot/grub/grub.cfg; MOMENT; '
    "cat etc/default/grub.d/*.cfg >> boot/grub/grub.cfg 2>/dev/null || :",
    # Has a memory of its own, and a command that takes back.
    "arguments": 'cd "$TOP"; sed -i "/^$2\\$/d" boot/arguments; MOMENT; '
    'if [ "$1" = add ]; then echo "$2" >> boot/arguments; fi',
}


class TellingCommands(Commands):
    """Real programs, with a moment before each, after each, and in the middle of the tools of TOOLS."""

    def __init__(self, tree: Tree, moment: Callable[[str], None]) -> None:
        super().__init__("/usr/bin:/bin")
        self._top = tree.top
        self._moment = moment

    def find(self, name: str) -> str:
        return "/bin/sh" if name in TOOLS else super().find(name)

    async def run(self, *argv: str, limit: float = 30.0) -> Completed:
        self._moment(f"before {argv[0]}")
        if argv[0] in TOOLS:
            first, second = TOOLS[argv[0]].split("MOMENT;")
            top = f"TOP={self._top}; failing=$TOP/.fail-{argv[0]}; "
            await super().run("sh", "-c", top + first, *argv, limit=limit)
            self._moment(f"in {argv[0]}")
            fails = '; if [ -e "$failing" ]; then rm "$failing"; echo "no room on $TOP" >&2; exit 1; fi; :; '
            done = await super().run("sh", "-c", f"{top} cd $TOP {fails} {second}", *argv, limit=limit)
        else:
            done = await super().run(*argv, limit=limit)
        self._moment(f"after {argv[0]}")
        return done


class All(NamedTuple):
    """All that a change could touch."""

    files: tuple[tuple[str, str | None], ...]
    switch: str | None


def ground_of(tree: Tree, moment: Callable[[str], None] = lambda _: None) -> Ground:
    plain = Ground.of(tree, moment)
    commands = TellingCommands(tree, moment)
    host = Host(plain.host.root, commands, plain.host.kmod, plain.host.kvm, RELEASE)
    return Ground(tree, host)


def start(top: Path) -> Tree:
    tree = build(top, Start(ON, None))
    for path, text in ((MADE, "as it was\n"), (KEPT_BY_TOOL, "theirs\n")):
        tree.write(path, text)
    tree.path(DEFAULTS).parent.mkdir(parents=True)
    return tree


def plan_of(scope: Scope, reload: tuple[Step, ...] = ()) -> steps.Plan:
    """Off, with everything that the boot half of a plan can have."""
    return steps.Plan(
        Wish(OFF, scope),
        (
            WriteFile(own.PATH, own.text(Own(ON)), None),
            WriteFile(dropin.PATH, dropin.text(AMD, OFF), None),
            WriteFile(DEFAULTS, "nested=0\n", None),
            Run(("make-anew",), keeps=(MADE, "/boot/new-by-tool")),
            Run(("arguments", "add", "nested=0"), undo=("arguments", "delete", "nested=0")),
            *reload,
        ),
    )


RELOAD: tuple[Step, ...] = (steps.Unload(ON, AMD, {"npt": "Y"}), steps.Load(AMD, OFF, {"npt": "Y"}))
WISHES = [
    pytest.param(plan_of(Scope.BOOT), id="boot"),
    pytest.param(plan_of(Scope.BOTH, RELOAD), id="both"),
]


def state(ground: Ground) -> All:
    paths = (own.PATH, dropin.PATH, DEFAULTS, MADE, KEPT_BY_TOOL, "/boot/new-by-tool")
    return All(tuple((path, ground.tree.root.read(path)) for path in paths), ground.state().switch)


def carry_out(ground: Ground, todo: steps.Plan) -> None:
    ledger = Ledger(ground.host.root, RELEASE)
    ledger.load()
    loop.run(change.carry_out(ground.host, ledger, todo, ground.read))


def old_and_new(top: Path, todo: steps.Plan) -> tuple[All, All]:
    ground = ground_of(start(top / "plain"))
    old = state(ground)
    carry_out(ground, todo)
    new = state(ground)
    assert dict(new.files)[MADE] == "made of:\nnested=0\n"
    assert dict(new.files)[KEPT_BY_TOOL] == "theirs\nnested=0\n"
    assert not ground.tree.root.exists(CHANGE) and ground.tree.root.names(kept.FOLDER) == ()
    return old, new


@pytest.mark.parametrize("todo", WISHES)
@pytest.mark.parametrize("rebooted", [False, True])
def test_killed_at_each_moment(top: Path, todo: steps.Plan, rebooted: bool) -> None:
    """In the same boot it goes on; after a power cut it does, if the first of it was in place."""
    old, new = old_and_new(top, todo)
    whole = start(top / "whole")
    for number in range(1000):
        tree = copy(whole, top / "killed")
        ground = ground_of(tree, counted(kill_myself, number))
        if not forked(lambda ground=ground: carry_out(ground, todo)):  # type: ignore[misc]
            assert number > 30, "hardly a moment at all"
            return
        ground = ground_of(tree)
        journalled = tree.root.exists(CHANGE)
        begun = tree.root.exists(own.PATH)
        if rebooted:
            tree.write(BOOT_ID, "second\n")
            if tree.root.exists("/sys/module/kvm_amd"):
                remove(tree, "kvm_amd")
            insert(tree, "kvm_amd", {})
        ledger = ground.heal()
        finished = begun if rebooted else journalled or begun
        assert state(ground).files == (new if finished else old).files, number
        if todo.wish.scope is Scope.BOTH:
            assert state(ground).switch == (new if finished else old).switch, number
        assert not tree.root.exists(CHANGE), number
        assert tree.root.names(kept.FOLDER) == (), number
        if number % 5 == 0:
            tree.gone(dropin.PATH) if tree.root.exists(dropin.PATH) else None
            assert_settled(ground, ledger)


@pytest.mark.parametrize("todo", WISHES)
@pytest.mark.parametrize("tool", list(TOOLS))
def test_a_tool_that_fails_half_way_leaves_the_old_files(top: Path, todo: steps.Plan, tool: str) -> None:
    ground = ground_of(start(top / "tree"))
    old = state(ground)
    ground.tree.write(f"/.fail-{tool}", "")
    with pytest.raises(errors.BootloaderFailed, match=f"^{tool}.*no room on .*The old state is back"):
        carry_out(ground, todo)
    assert state(ground) == old
    assert not ground.tree.root.exists(CHANGE)
    carry_out(ground, todo)


def test_what_cannot_be_taken_back_is_told_and_settled_later(top: Path) -> None:
    ground = ground_of(start(top / "tree"))
    old = state(ground)
    todo = plan_of(Scope.BOOT)
    broken = todo._replace(steps=(*todo.steps, Run(("false",))))
    failing = ("sh", "-c", "test ! -e $0/.stuck", str(ground.tree.top))
    stuck = Run(("arguments", "add", "x"), undo=failing)
    ground.tree.write("/.stuck", "")
    with pytest.raises(errors.RollbackFailed, match="Undoing it failed too: sh -c"):
        carry_out(ground, broken._replace(steps=(*todo.steps, stuck, Run(("false",)))))
    assert ground.tree.root.exists(CHANGE)
    ground.tree.gone("/.stuck")
    ground.heal()
    assert not ground.tree.root.exists(CHANGE)
    files = dict(state(ground).files)
    assert files.pop(KEPT_BY_TOOL) == "theirs\nx\n"  # the failing command took nothing back
    assert files == {path: text for path, text in old.files if path != KEPT_BY_TOOL}


def test_the_same_once_more_is_the_same(top: Path) -> None:
    todo = plan_of(Scope.BOOT)
    _, new = old_and_new(top, todo)
    ground = ground_of(start(top / "tree"))
    carry_out(ground, todo)
    carry_out(ground, todo)
    assert state(ground) == new
