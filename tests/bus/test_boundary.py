# SPDX-License-Identifier: LGPL-2.1-or-later
"""Options, and the table of who may do what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from nestd import errors
from nestd.bus import boundary
from nestd.bus import interface as description
from nestd.bus.exported import Call, Handler
from nestd.bus.manager import LaunchRequest
from nestd.guests.request import guest_spec
from nestd.model import Nesting, Scope, Waiting
from nestd.wire.library import Variant
from tests.support import loop

_MANAGER, _GUEST = "org.nestd1.Manager", "org.nestd1.Guest"


@dataclass
class _Judge:
    """Allows what is in `allowed`, to the user `uid`."""

    uid: int = 1000
    allowed: frozenset[str] = frozenset()
    asked: list[tuple[str, str, dict[str, str], bool]] = field(default_factory=list)

    async def check(self, sender: str, action: str, details: Mapping[str, str], interactive: bool) -> None:
        self.asked.append((sender, action, dict(details), interactive))
        if action not in self.allowed:
            raise errors.AccessDenied("no")

    async def uid_of(self, sender: str) -> int:
        return self.uid


@dataclass(frozen=True)
class _Guest:
    interface: str = _GUEST
    methods: Mapping[str, Handler] = field(default_factory=dict)
    owner: int = 1000
    name: str = "demo"

    @property
    def state(self) -> object:
        return ()

    def properties(self) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True)
class _Nobodys:
    interface: str = _GUEST
    methods: Mapping[str, Handler] = field(default_factory=dict)

    @property
    def state(self) -> object:
        return ()

    def properties(self) -> Mapping[str, Any]:
        return {}


def _call(member: str, *arguments: Any, interface: str = _MANAGER, interactive: bool = False) -> Call:
    return Call(":1.5", "/org/nestd1", interface, member, arguments, interactive)


def _judged(judge: _Judge, call: Call, exported: Any = None) -> list[str]:
    """The actions that were asked for. Raises what the guard raises."""
    request: object = None
    if call.member in ("Enable", "Disable"):
        request = boundary.change(call)
    if call.member == "Revert":
        request = boundary.revert(call)
    if call.member == "Launch":
        name, options = call.arguments
        request = LaunchRequest(guest_spec(name, "", options), options.get("user", ""))
    pending = boundary.Guard(judge)(call, request, exported or _Guest())
    if pending is not None:
        loop.run(pending)
    return [action for _, action, _, _ in judge.asked]


def test_every_method_of_the_xml_is_in_the_table_and_nothing_else() -> None:
    described = description.parse(description.installed())
    members = {(name, member) for name, each in described.items() for member in each.methods}
    assert set(boundary.RULES) == members


@pytest.mark.parametrize(
    ("member", "arguments"), [("GetStatus", ()), ("ListHolders", ()), ("GetGuest", ("demo",))]
)
def test_reading_is_open(member: str, arguments: tuple[Any, ...]) -> None:
    assert boundary.Guard(_Judge())(_call(member, *arguments), None, _Guest()) is None


@pytest.mark.parametrize("member", ["Enable", "Disable"])
@pytest.mark.parametrize(
    ("scope", "actions"),
    [
        ("runtime", [boundary.SET_RUNTIME]),
        ("boot", [boundary.SET_BOOT]),
        ("both", [boundary.SET_RUNTIME, boundary.SET_BOOT]),
        (None, [boundary.SET_RUNTIME, boundary.SET_BOOT]),
    ],
)
def test_a_change_needs_the_actions_of_its_scope(member: str, scope: str | None, actions: list[str]) -> None:
    options = {} if scope is None else {"scope": Variant("s", scope)}
    judge = _Judge(allowed=frozenset(actions))
    assert _judged(judge, _call(member, options, interactive=True)) == actions
    wanted = {"nested": "on" if member == "Enable" else "off"}
    assert judge.asked[0] == (":1.5", actions[0], wanted, True)
    for refused in actions:
        with pytest.raises(errors.AccessDenied):
            _judged(_Judge(allowed=frozenset(actions) - {refused}), _call(member, options))


def _waiting(scope: Scope) -> Waiting:
    return Waiting(Nesting.OFF, scope, 0)


_HALVES = {
    Scope.RUNTIME: [boundary.SET_RUNTIME],
    Scope.BOOT: [boundary.SET_BOOT],
    Scope.BOTH: [boundary.SET_RUNTIME, boundary.SET_BOOT],
}


@pytest.mark.parametrize("asked", Scope)
@pytest.mark.parametrize("waits", [Scope.RUNTIME, Scope.BOTH])
def test_what_waits_is_not_displaced_by_less_than_it_needed(asked: Scope, waits: Scope) -> None:
    call = _call("Enable", {"scope": Variant("s", str(asked)), "when-idle": Variant("b", True)})
    request = boundary.change(call, _waiting(waits))
    assert request.when_idle
    judge = _Judge(allowed=frozenset(_HALVES[Scope.BOTH]))
    pending = boundary.Guard(judge)(call, request, _Guest())
    assert pending is not None
    loop.run(pending)
    needed = [action for _, action, _, _ in judge.asked]
    assert needed == (_HALVES[asked] if asked is waits else _HALVES[Scope.BOTH])
    dry = boundary.change(_call("Enable", {"dry-run": Variant("b", True)}), _waiting(waits))
    assert boundary.Guard(_Judge())(call, dry, _Guest()) is None


@pytest.mark.parametrize("waits", [None, Scope.RUNTIME, Scope.BOTH])
def test_cancelling_needs_what_asking_needed(waits: Scope | None) -> None:
    judge = _Judge(allowed=frozenset(_HALVES[Scope.BOTH]))
    pending = boundary.Guard(judge)(_call("CancelPending"), waits and _waiting(waits), _Guest())
    assert pending is not None
    loop.run(pending)
    assert [action for _, action, _, _ in judge.asked] == _HALVES[waits or Scope.RUNTIME]
    assert {*judge.asked[0][2]} == {"polkit.message"}


@pytest.mark.parametrize("member", ["Enable", "Disable", "Revert"])
def test_a_dry_run_is_reading(member: str) -> None:
    assert _judged(_Judge(), _call(member, {"dry-run": Variant("b", True)})) == []


def test_reverting_is_about_the_next_boot() -> None:
    judge = _Judge(allowed=frozenset({boundary.SET_BOOT}))
    assert _judged(judge, _call("Revert", {}, interactive=True)) == [boundary.SET_BOOT]
    [(_, _, details, interactive)] = judge.asked
    assert interactive and "from the next boot on" in details["polkit.message"]
    with pytest.raises(errors.AccessDenied):
        _judged(_Judge(allowed=frozenset({boundary.SET_RUNTIME})), _call("Revert", {}))


@pytest.mark.parametrize("waits", [Scope.RUNTIME, Scope.BOTH])
def test_reverting_what_waits_needs_what_cancelling_it_needs(waits: Scope) -> None:
    call = _call("Revert", {})
    judge = _Judge(allowed=frozenset(_HALVES[Scope.BOTH]))
    pending = boundary.Guard(judge)(call, boundary.revert(call, _waiting(waits)), _Guest())
    assert pending is not None
    loop.run(pending)
    assert [action for _, action, _, _ in judge.asked] == _HALVES[Scope.BOTH]


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


def test_launch() -> None:
    judge = _Judge(allowed=frozenset({boundary.LAUNCH}))
    assert _judged(judge, _call("Launch", "demo", {})) == [boundary.LAUNCH]
    assert judge.asked[0][2] == {"guest": "demo"}
    with pytest.raises(errors.AccessDenied):
        _judged(_Judge(), _call("Launch", "demo", {}))


def test_root_alone_chooses_the_user_and_nobody_is_asked_about_others() -> None:
    call = _call("Launch", "demo", {"user": "mail"})
    assert _judged(_Judge(uid=0, allowed=frozenset({boundary.LAUNCH})), call) == [boundary.LAUNCH]
    judge = _Judge(allowed=frozenset({boundary.LAUNCH}))
    with pytest.raises(errors.AccessDenied, match="Only root chooses"):
        _judged(judge, call)
    assert judge.asked == []


@pytest.mark.parametrize("member", ["Stop", "Kill", "OpenConsole", "GetConsoleLog"])
def test_guests_belong_to_their_owner(member: str) -> None:
    call = _call(member, interface=_GUEST)
    assert _judged(_Judge(uid=1000), call) == []
    with pytest.raises(errors.AccessDenied):
        _judged(_Judge(uid=1001), call)
    judge = _Judge(uid=1001, allowed=frozenset({boundary.MANAGE_GUESTS}))
    assert _judged(judge, call) == [boundary.MANAGE_GUESTS]
    assert judge.asked[0][2]["guest"] == "demo"
    with pytest.raises(errors.AccessDenied):
        _judged(_Judge(uid=0), call, _Nobodys())


@pytest.mark.parametrize("call", [_call("Reboot"), _call("Stop"), _call("GetStatus", interface="a.b")])
def test_what_is_not_in_the_table_is_refused(call: Call) -> None:
    with pytest.raises(errors.AccessDenied):
        _judged(_Judge(), call)


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
