# SPDX-License-Identifier: LGPL-2.1-or-later
"""Options: strangers' words become values, or are refused with a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from nestd import errors
from nestd.bus import boundary
from nestd.bus.exported import Call
from nestd.model import Scope
from nestd.wire.library import Variant


def _call(member: str, *arguments: Any) -> Call:
    return Call(":1.5", "/org/nestd1", "org.nestd1.Manager", member, arguments, interactive=False)


@pytest.mark.parametrize(
    "given", [{"scope": "boot"}, {"replace": True}, {"loader": "grub"}, {"when-idle": True}]
)
def test_reverting_has_no_other_option_than_dry_run(given: dict[str, str | bool]) -> None:
    options = {name: Variant("b" if value is True else "s", value) for name, value in given.items()}
    with pytest.raises(errors.InvalidArgs, match="Known options: dry-run"):
        boundary.revert(_call("Revert", options))


@pytest.mark.parametrize("name", boundary.LOADERS)
def test_who_writes_the_command_line_can_be_said(name: str) -> None:
    given = {"loader": Variant("s", name), "replace": Variant("b", True)}
    request = boundary.change(_call("Enable", given))
    assert (request.loader, request.replace, request.scope) == (name, True, Scope.BOTH)
    plain = boundary.change(_call("Enable", {}))
    assert (plain.loader, plain.replace) == ("", False)


@pytest.mark.parametrize("name", ["", "lilo", "GRUB", "grub ", "grub\n", "../grub", "x" * 500])
def test_other_names_are_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(errors.InvalidArgs) as caught:
        boundary.change(_call("Enable", {"loader": Variant("s", name)}))
    text = str(caught.value)
    assert text.startswith(
        "The option loader must be one of grub, kernel-install, grubby, rpm-ostree, ostree, bootc"
    )
    assert text.isprintable() and len(text) < 250


@pytest.mark.parametrize("more", [{"loader": Variant("s", "grub")}, {"replace": Variant("b", True)}])
def test_the_command_line_is_nothing_to_the_running_kernel(more: dict[str, Variant]) -> None:
    runtime = {"scope": Variant("s", "runtime")}
    with pytest.raises(errors.InvalidArgs, match="scope boot or both"):
        boundary.change(_call("Disable", {**runtime, **more}))
    harmless = {**runtime, "replace": Variant("b", False)}
    assert boundary.change(_call("Disable", harmless)).scope is Scope.RUNTIME


def test_options() -> None:
    table = {"scope": "s", "memory": "t"}
    given = {"scope": Variant("s", "boot"), "memory": Variant("t", 5)}
    assert boundary.options(given, table) == {"scope": "boot", "memory": 5}
    with pytest.raises(errors.InvalidArgs, match=r"'scop'.*Known options: memory, scope"):
        boundary.options({"scop": Variant("s", "x")}, table)
    with pytest.raises(errors.InvalidArgs, match="memory must be an unsigned 64-bit number"):
        boundary.options({"memory": Variant("u", 5)}, table)
    with pytest.raises(errors.InvalidArgs) as caught:
        boundary.options({"x\n" * 5000: Variant("s", "x")}, table)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_change_is_validated() -> None:
    options = {"scope": Variant("s", "boot"), "dry-run": Variant("b", True)}
    assert boundary.change(_call("Enable", options)) == boundary.Change(Scope.BOOT, True)
    assert boundary.change(_call("Enable", {})) == boundary.Change(Scope.BOTH, False)
    with pytest.raises(errors.InvalidArgs, match="both, runtime, boot"):
        boundary.change(_call("Enable", {"scope": Variant("s", "never")}))
