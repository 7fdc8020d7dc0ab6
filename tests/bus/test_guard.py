# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of who may do what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from nestd import errors
from nestd.bus import boundary, guard
from nestd.bus import interface as description
from nestd.bus.exported import Call, Handler
from nestd.bus.labs import CreateRequest
from nestd.bus.manager import LaunchRequest
from nestd.guests import lab as values
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
        return self

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
    pending = guard.Guard(judge)(call, request, exported or _Guest())
    if pending is not None:
        loop.run(pending)
    return [action for _, action, _, _ in judge.asked]


def test_every_method_of_the_xml_is_in_the_table_and_nothing_else() -> None:
    described = description.parse(description.installed())
    members = {(name, member) for name, each in described.items() for member in each.methods}
    assert set(guard.RULES) == members


@pytest.mark.parametrize(
    ("member", "arguments"), [("GetStatus", ()), ("ListHolders", ()), ("GetGuest", ("demo",))]
)
def test_reading_is_open(member: str, arguments: tuple[Any, ...]) -> None:
    assert guard.Guard(_Judge())(_call(member, *arguments), None, _Guest()) is None


@pytest.mark.parametrize("member", ["Enable", "Disable"])
@pytest.mark.parametrize(
    ("scope", "actions"),
    [
        ("runtime", [guard.SET_RUNTIME]),
        ("boot", [guard.SET_BOOT]),
        ("both", [guard.SET_RUNTIME, guard.SET_BOOT]),
        (None, [guard.SET_RUNTIME, guard.SET_BOOT]),
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
    Scope.RUNTIME: [guard.SET_RUNTIME],
    Scope.BOOT: [guard.SET_BOOT],
    Scope.BOTH: [guard.SET_RUNTIME, guard.SET_BOOT],
}


@pytest.mark.parametrize("asked", Scope)
@pytest.mark.parametrize("waits", [Scope.RUNTIME, Scope.BOTH])
def test_what_waits_is_not_displaced_by_less_than_it_needed(asked: Scope, waits: Scope) -> None:
    call = _call("Enable", {"scope": Variant("s", str(asked)), "when-idle": Variant("b", True)})
    request = boundary.change(call, _waiting(waits))
    assert request.when_idle
    judge = _Judge(allowed=frozenset(_HALVES[Scope.BOTH]))
    pending = guard.Guard(judge)(call, request, _Guest())
    assert pending is not None
    loop.run(pending)
    needed = [action for _, action, _, _ in judge.asked]
    assert needed == (_HALVES[asked] if asked is waits else _HALVES[Scope.BOTH])
    dry = boundary.change(_call("Enable", {"dry-run": Variant("b", True)}), _waiting(waits))
    assert guard.Guard(_Judge())(call, dry, _Guest()) is None


@pytest.mark.parametrize("waits", [None, Scope.RUNTIME, Scope.BOTH])
def test_cancelling_needs_what_asking_needed(waits: Scope | None) -> None:
    judge = _Judge(allowed=frozenset(_HALVES[Scope.BOTH]))
    pending = guard.Guard(judge)(_call("CancelPending"), waits and _waiting(waits), _Guest())
    assert pending is not None
    loop.run(pending)
    assert [action for _, action, _, _ in judge.asked] == _HALVES[waits or Scope.RUNTIME]
    assert {*judge.asked[0][2]} == {"polkit.message", "polkit.gettext_domain"}


@pytest.mark.parametrize("member", ["Enable", "Disable", "Revert"])
def test_a_dry_run_is_reading(member: str) -> None:
    assert _judged(_Judge(), _call(member, {"dry-run": Variant("b", True)})) == []


def test_reverting_is_about_the_next_boot() -> None:
    judge = _Judge(allowed=frozenset({guard.SET_BOOT}))
    assert _judged(judge, _call("Revert", {}, interactive=True)) == [guard.SET_BOOT]
    [(_, _, details, interactive)] = judge.asked
    assert interactive and "from the next boot on" in details["polkit.message"]
    with pytest.raises(errors.AccessDenied):
        _judged(_Judge(allowed=frozenset({guard.SET_RUNTIME})), _call("Revert", {}))


@pytest.mark.parametrize("waits", [Scope.RUNTIME, Scope.BOTH])
def test_reverting_what_waits_needs_what_cancelling_it_needs(waits: Scope) -> None:
    call = _call("Revert", {})
    judge = _Judge(allowed=frozenset(_HALVES[Scope.BOTH]))
    pending = guard.Guard(judge)(call, boundary.revert(call, _waiting(waits)), _Guest())
    assert pending is not None
    loop.run(pending)
    assert [action for _, action, _, _ in judge.asked] == _HALVES[Scope.BOTH]


def test_launch() -> None:
    judge = _Judge(allowed=frozenset({guard.LAUNCH}))
    assert _judged(judge, _call("Launch", "demo", {})) == [guard.LAUNCH]
    assert judge.asked[0][2] == {"guest": "demo"}
    with pytest.raises(errors.AccessDenied):
        _judged(_Judge(), _call("Launch", "demo", {}))


@pytest.mark.parametrize(
    ("given", "action", "says"),
    [
        ({}, guard.LAUNCH, "which may themselves run"),
        ({"extra-args": ["-rtc", "base=utc"]}, guard.LAUNCH_RAW, "that nobody has checked"),
    ],
)
def test_who_is_asked_about_a_lab_learns_its_name_and_its_size(
    given: dict[str, Any], action: str, says: str
) -> None:
    lab = values.new("town", 0, "", {"nodes": 3, **given})
    asked = CreateRequest("town", "", lab.options, lab.nodes, values.spec(lab, 1))
    judge = _Judge(allowed=frozenset({action}))
    pending = guard.Guard(judge)(_call("CreateLab", "town", given), asked, _Guest())
    assert pending is not None
    loop.run(pending)
    [(_, about, details, _)] = judge.asked
    assert (about, details["lab"], details["nodes"]) == (action, "town", "3")
    question = details["polkit.message"]
    assert '"$(lab)"' in question and "($(nodes))" in question and says in question


def test_root_alone_chooses_the_user_and_nobody_is_asked_about_others() -> None:
    call = _call("Launch", "demo", {"user": "mail"})
    assert _judged(_Judge(uid=0, allowed=frozenset({guard.LAUNCH})), call) == [guard.LAUNCH]
    judge = _Judge(allowed=frozenset({guard.LAUNCH}))
    with pytest.raises(errors.AccessDenied, match="Only root chooses"):
        _judged(judge, call)
    assert judge.asked == []


@pytest.mark.parametrize("member", ["Stop", "Kill", "OpenConsole", "GetConsoleLog"])
def test_guests_belong_to_their_owner(member: str) -> None:
    call = _call(member, interface=_GUEST)
    assert _judged(_Judge(uid=1000), call) == []
    with pytest.raises(errors.AccessDenied):
        _judged(_Judge(uid=1001), call)
    judge = _Judge(uid=1001, allowed=frozenset({guard.MANAGE_GUESTS}))
    assert _judged(judge, call) == [guard.MANAGE_GUESTS]
    assert judge.asked[0][2]["guest"] == "demo"
    with pytest.raises(errors.AccessDenied):
        _judged(_Judge(uid=0), call, _Nobodys())


@pytest.mark.parametrize("call", [_call("Reboot"), _call("Stop"), _call("GetStatus", interface="a.b")])
def test_what_is_not_in_the_table_is_refused(call: Call) -> None:
    with pytest.raises(errors.AccessDenied):
        _judged(_Judge(), call)


@pytest.mark.parametrize("member", ["Verify", "MeasureExit", "CheckCpu"])
def test_a_probe_is_a_guest_that_asks_in_its_own_words(member: str) -> None:
    judge = _Judge(allowed=frozenset({guard.LAUNCH}))
    asked = LaunchRequest(guest_spec("verify", "", {}), "")
    pending = guard.Guard(judge)(_call(member, {}), asked, _Guest())
    assert pending is not None
    loop.run(pending)
    [(_, action, details, _)] = judge.asked
    assert action == guard.LAUNCH and details["polkit.message"].startswith("Authentication is required to ")
    as_mail = guard.Guard(judge)(_call(member, {}), asked._replace(user="mail"), _Guest())
    assert as_mail is not None
    with pytest.raises(errors.AccessDenied, match="Only root chooses"):
        loop.run(as_mail)
    assert len(judge.asked) == 1
