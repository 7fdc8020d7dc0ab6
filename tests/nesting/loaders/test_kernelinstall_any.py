# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any entries and any /etc/kernel/cmdline: undone byte for byte, by steps and by script."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nestd.nesting.loaders.entries import SHIPPED, TEMPLATE
from nestd.nesting.own import Own
from nestd.text.arguments import Edit, has
from tests.nesting.loaders.carried import NOTHING, OFF, ON, command_line, move, run_script, state
from tests.nesting.loaders.installed import LOADER, OLD, entry, install, installed_machine
from tests.nesting.machines import Machine
from tests.support.fakeloaders import MACHINE_ID, NEW

__all__ = ["installed_machine"]

WORDS = st.sampled_from(
    [OFF, ON, "kvm-amd.nested=0", "quiet", 'x="a b"', f'y="a {OFF} b"', "z=a.b*c/&\\", "'", " ", "\t"]
)
LINES = st.lists(WORDS, max_size=6).map(" ".join).filter(lambda line: line.strip())
TEXTS = st.lists(st.one_of(LINES, st.just(""), st.just(f"# {OFF} 'x' {ON}")), max_size=3).map("\n".join)
WISHES = st.sampled_from([Edit((ON,)), Edit((ON,), (OFF,)), Edit((), (OFF,)), Edit((OFF,), (ON,))])


# Making a failing example smaller would take minutes: each runs some fifty programs.
SETTINGS = settings(
    deadline=None,
    max_examples=20,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def prepared(machine: Machine, template: str | None, shipped: str | None, rows: tuple[str, str]) -> None:
    """Any starting configuration, in the tree of the test before."""
    for path, text in ((TEMPLATE, template), (SHIPPED, shipped)):
        if text is not None:
            machine.tree.write(path, text)
        elif machine.host.root.exists(path):
            machine.tree.gone(path)
    for release, row in zip((OLD, NEW), rows, strict=True):
        parts = (f"title  ä\nversion {release}", f"options  {row}", f"linux /{MACHINE_ID}/{release}/linux\n")
        machine.tree.write(entry(release), "\n".join(parts))


@SETTINGS
@given(st.none() | TEXTS, st.none() | TEXTS, st.tuples(LINES, LINES), WISHES, WISHES)
def test_any_configuration(
    machine: Machine,
    template: str | None,
    shipped: str | None,
    rows: tuple[str, str],
    first: Edit,
    second: Edit,
) -> None:
    prepared(machine, template, shipped, rows)
    before = state(machine)
    own = move(machine, LOADER, Own(), first)
    own = move(machine, LOADER, own, second)
    line = command_line(machine)
    assert all(has(line, word) for word in second.add)
    assert not any(has(line, word) for word in second.remove)
    done = state(machine)
    run_script(machine, LOADER, own)
    assert state(machine) == before
    for path, data in done.items():
        machine.tree.write(path, data.decode())
    assert move(machine, LOADER, own, NOTHING) == Own()
    assert state(machine) == before


@SETTINGS
@given(st.none() | TEXTS, st.tuples(LINES, LINES), WISHES)
def test_edited_meanwhile_steps_and_script_agree(
    machine: Machine, template: str | None, rows: tuple[str, str], wanted: Edit
) -> None:
    prepared(machine, template, None, rows)
    own = move(machine, LOADER, Own(), wanted)
    install(machine, "6.13")
    for path in (TEMPLATE, entry(OLD)):
        machine.tree.write(path, "".join(f"mine {row}\n" for row in machine.tree.read(path).split("\n")))
        machine.tree.write(
            path, machine.tree.read(path).replace("mine title", "title").replace("mine linux", "linux")
        )
        machine.tree.write(path, machine.tree.read(path).replace("mine version", "version"))
        machine.tree.write(path, machine.tree.read(path).replace("mine options", "options mine"))
    edited = state(machine)
    run_script(machine, LOADER, own)
    by_script = state(machine)
    for path, data in edited.items():
        machine.tree.write(path, data.decode())
    for path in by_script.keys() - edited.keys():
        machine.tree.gone(path)
    move(machine, LOADER, own, NOTHING)
    assert state(machine) == by_script
    for path in (TEMPLATE, entry(OLD)):
        assert "mine" in machine.tree.read(path)
