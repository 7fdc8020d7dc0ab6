# SPDX-License-Identifier: LGPL-2.1-or-later
"""What polkit is asked, word for word; and what is done before it answers, which is nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon.matrix import oracle
from tests.daemon.matrix.oracle import ASK, BOOT, DENIED, NEW, RUNTIME, Caller, Request
from tests.daemon.matrix.town import NESTED, ZZ, Town
from tests.support.clients import PATH, Client, Variant, options
from tests.support.heldpolkit import CHALLENGE, NO, YES, HeldPolkit

pytestmark = pytest.mark.bus

INVALID = "org.freedesktop.DBus.Error.InvalidArgs"
GONE = "org.freedesktop.DBus.Error.UnknownObject"
USERS = [caller for caller in Caller if caller is not Caller.ROOT]
GUARDED = [
    (caller, request) for caller in Caller for request in oracle.requests() if oracle.actions(request, caller)
]
OPEN = [
    (caller, request)
    for caller in Caller
    for request in oracle.requests()
    if not oracle.actions(request, caller) and not oracle.lacks_account(request, caller)
]
# What polkit's rules and the person who is asked read.
VERBS = {
    "Stop": ("stop", "stop"),
    "Kill": ("kill", "kill"),
    "OpenConsole": ("open the console of", "use the console of"),
    "GetConsoleLog": ("read the console of", "read the console of"),
}
LABS = {
    "Start": 'start the virtual machines of "$(lab)", another user\'s lab',
    "Stop": 'stop the virtual machines of "$(lab)", another user\'s lab',
    "Remove": 'remove "$(lab)", another user\'s lab, with its disks',
}
PROBES = {
    "Verify": "start a virtual machine that tells whether nested virtualization works here, and then ends",
    "MeasureExit": "measure what virtualization costs on this machine",
    "CheckCpu": "start a virtual machine that tells which CPU it got, and ends",
}
[DISABLE] = [request for request in oracle.requests() if request.label == "Disable:runtime"]
[KILL] = [request for request in oracle.requests() if request.label == "Kill:actives"]


def names(cases: list[tuple[Caller, Request]]) -> list[str]:
    return [f"{caller}-{request.label}" for caller, request in cases]


@pytest.fixture
def polkit(town: Town) -> Iterator[HeldPolkit]:
    with HeldPolkit(town.bus) as polkit:
        yield polkit
        assert polkit.more() == []


def said_in_translation(words: str) -> dict[str, str]:
    """polkit(8): this instead of the action's own words, as the catalogue nestd has it."""
    return {"polkit.message": words, "polkit.gettext_domain": "nestd"}


def details(request: Request) -> dict[str, str]:
    """What the person is told beside the action."""
    if request.interface == oracle.GUEST:
        assert request.owner is not None
        verb, said = VERBS[request.member]
        words = f'Authentication is required to {said} "$(guest)", another user\'s virtual machine.'
        return {"guest": request.owner.value, "verb": verb, **said_in_translation(words)}
    if request.interface == oracle.LAB:
        assert request.owner is not None
        words = f"Authentication is required to {LABS[request.member]}."
        verb = request.member.lower()
        return {"lab": request.owner.value, "verb": verb, **said_in_translation(words)}
    if request.member == "Launch":
        return {"guest": NEW}
    if request.member == "CreateLab":
        more = ", which may themselves run virtual machines."
        if request.label.endswith(":raw"):
            more = " with arguments for QEMU that nobody has checked."
        words = (
            'Authentication is required to create the lab "$(lab)" and start its virtual machines ($(nodes))'
        )
        return {"lab": NEW, "nodes": "1", **said_in_translation(words + more)}
    if request.member in PROBES:
        return said_in_translation(f"Authentication is required to {PROBES[request.member]}.")
    if request.member == "CancelPending":
        words = "Authentication is required to cancel the change of nested virtualization that waits."
        return said_in_translation(words)
    if request.member == "Revert":
        words = (
            "Authentication is required to take back, from the next boot on, what was set for nested "
            "virtualization."
        )
        return said_in_translation(words)
    return {"nested": "on" if request.member == "Enable" else "off"}


@pytest.mark.parametrize("interactive", [False, True], ids=["silent", "interactive"])
@pytest.mark.parametrize(("caller", "request_"), GUARDED, ids=names(GUARDED))
def test_the_question_is_about_exactly_what_was_asked(
    town: Town, polkit: HeldPolkit, caller: Caller, request_: Request, interactive: bool
) -> None:
    client, before = town.clients[caller], town.prepare(request_)
    serial = town.send(client, request_, interactive=interactive)
    *granted, last = oracle.actions(request_, caller)
    for action in (*granted, last):
        question = polkit.question()
        assert question.subject == ["system-bus-name", {"name": client.unique_name}]
        assert (question.action, question.details) == (action, details(request_))
        assert question.flags == (1 if interactive else 0)
        # While polkit thinks, everybody is answered, and nothing is done.
        assert client.get("Driver") == "kvm_amd"
        town.assert_untouched(before)
        assert polkit.more() == []
        # Of two actions the first alone is nothing.
        polkit.answer(question, NO if action == last else YES)
    assert client.failure(serial).name == DENIED
    town.assert_untouched(before)


@pytest.mark.parametrize(("caller", "request_"), OPEN, ids=names(OPEN))
def test_what_is_open_or_ones_own_or_roots_alone_asks_nothing(
    town: Town, polkit: HeldPolkit, caller: Caller, request_: Request
) -> None:
    client, before = town.clients[caller], town.prepare(request_)
    serial = town.send(client, request_, interactive=True)
    if oracle.is_roots_alone(request_) and caller is not Caller.ROOT:
        assert client.failure(serial).name == DENIED
        town.assert_untouched(before)
    elif request_.member in oracle.BEYOND:
        assert client.failure(serial).name == oracle.BEYOND[request_.member]
        town.assert_untouched(before)
    else:
        client.reply(serial)
        town.assert_done(request_, caller, before)
    assert polkit.more() == []


@pytest.mark.parametrize(("caller", "request_"), GUARDED, ids=names(GUARDED))
def test_a_caller_who_leaves_gets_nothing_done(
    town: Town, polkit: HeldPolkit, caller: Caller, request_: Request
) -> None:
    """Not even by a polkit that says yes when the question was withdrawn already."""
    before = town.prepare(request_)
    with town.logins[caller].client() as client:
        town.send(client, request_, interactive=True)
        question = polkit.question()
    assert polkit.withdrawn() == question.cancellation
    polkit.answer(question, YES)
    assert polkit.more() == []
    town.assert_untouched(before)


NO_CHANGE: list[tuple[str, list[Any]]] = [
    ("", []),
    ("s", ["runtime"]),
    ("a{ss}", [{"scope": "runtime"}]),
    ("a{sv}", [options(scope="everything")]),
    ("a{sv}", [options(scope=7)]),
    ("a{sv}", [options(scope="runtime", force=True)]),
    ("a{sv}", [options(dry_run="yes")]),
    ("a{sv}", [options(when_idle=1)]),
    ("a{sv}", [options(loader="lilo")]),
    ("a{sv}", [options(replace="all")]),
    ("a{sv}", [options(scope="runtime", replace=True)]),
    ("a{sv}", [options(scope="runtime", loader="grub")]),
]
WRONG: list[tuple[str, str, list[Any]]] = [
    *(("Enable", signature, body) for signature, body in NO_CHANGE),
    *(("Disable", signature, body) for signature, body in NO_CHANGE),
    ("Revert", "", []),
    ("Revert", "a{sv}", [options(scope="boot")]),
    ("Revert", "a{sv}", [options(dry_run=1)]),
    ("CancelPending", "s", ["now"]),
    ("Launch", "s", [NEW]),
    ("Launch", "a{sv}", [{}]),
    ("Launch", "sa{sv}", ["../fresh", {}]),
    ("Launch", "sa{sv}", [NEW, options(memory="all")]),
    ("Launch", "sa{sv}", [NEW, options(kernel="relative")]),
    ("Launch", "sa{sv}", [NEW, options(cpu="host,+x\n")]),
    ("Launch", "sa{sv}", [NEW, {"disks": Variant("aa{sv}", [options(path="/d")])}]),
    ("CreateLab", "s", [NEW]),
    ("CreateLab", "sa{sv}", ["../fresh", {}]),
    ("CreateLab", "sa{sv}", [NEW, options(nodes="two")]),
    ("CreateLab", "sa{sv}", [NEW, {"nodes": Variant("u", 0)}]),
    ("CreateLab", "sa{sv}", [NEW, options(subnet="10.77.0.0")]),
    ("Start", "", []),
    ("Start", "a{sv}", [options(force=True)]),
    ("Remove", "s", ["now"]),
    ("Verify", "", []),
    ("Verify", "a{sv}", [{"timeout": Variant("u", 0)}]),
    ("Verify", "a{sv}", [options(cpu="host,-svm")]),
    ("Verify", "a{sv}", [options(levels=2)]),
    ("MeasureExit", "", []),
    ("MeasureExit", "a{sv}", [options(user="mail")]),
    ("CheckCpu", "s", ["host"]),
    ("CheckCpu", "a{sv}", [{"cpu-features": Variant("as", ["svm"])}]),
    ("CheckCpu", "a{sv}", [{"timeout": Variant("u", 9)}]),
    ("Stop", "", []),
    ("Stop", "a{sv}", [options(timeout="soon")]),
    ("Stop", "a{sv}", [{"timeout": Variant("t", 1 << 63)}]),
    ("Stop", "a{sv}", [options(force=True)]),
    ("Kill", "s", ["now"]),
    ("OpenConsole", "u", [0]),
    ("GetConsoleLog", "as", [[]]),
]


@pytest.mark.parametrize("caller", USERS)
def test_what_is_wrong_in_itself_is_refused_before_anybody_is_asked(
    town: Town, polkit: HeldPolkit, caller: Caller
) -> None:
    client, before = town.clients[caller], town.prepare(DISABLE)
    assert {member for member, *_ in WRONG} == {request.member for _, request in GUARDED}
    stranger = Caller.OTHER if caller is Caller.ACTIVE else Caller.ACTIVE
    for member, signature, body in WRONG:
        path, interface = PATH, oracle.MANAGER
        if member in ("Stop", "Kill", "OpenConsole", "GetConsoleLog"):
            path, interface = f"{PATH}/guest/{stranger}", oracle.GUEST
        elif member in ("Start", "Remove"):
            path, interface = f"{PATH}/lab/{stranger}", oracle.LAB
        error = client.error(member, signature, body, path=path, interface=interface, interactive=True)
        assert error.name == INVALID, (member, signature, body)
    for member, path in (("Kill", f"{PATH}/guest/none"), ("Kill", PATH), ("Reboot", PATH)):
        assert client.error(member, path=path, interface=oracle.GUEST, interactive=True).name.startswith(
            "org.freedesktop.DBus.Error.Unknown"
        )
    assert polkit.more() == []
    town.assert_untouched(before)


def test_an_answer_goes_to_the_one_who_asked(town: Town, polkit: HeldPolkit) -> None:
    """Two of the same user, with one and the same serial; and unique names are never used again."""
    before = town.prepare(DISABLE)
    login = town.logins[Caller.OTHER]
    with login.client() as first, login.client() as second:
        serials = [town.send(client, DISABLE) for client in (first, second)]
        assert serials[0] == serials[1]
        questions = {asked.subject[1]["name"]: asked for asked in (polkit.question(), polkit.question())}
        assert questions.keys() == {first.unique_name, second.unique_name}
        polkit.answer(questions[second.unique_name], CHALLENGE)
        assert second.failure(serials[1]).name == ASK
        town.assert_untouched(before)
        polkit.answer(questions[first.unique_name], YES)
        first.reply(serials[0])
        town.assert_done(DISABLE, Caller.OTHER, before)
    with login.client() as third:
        assert third.unique_name not in questions


def test_a_later_message_changes_nothing_in_what_was_asked_before(town: Town, polkit: HeldPolkit) -> None:
    """The question is about one request; the answer lets that one act, with what was read then."""
    town.prepare(DISABLE)
    with town.logins[Caller.OTHER].client() as client:
        serial = town.send(client, DISABLE)
        asked = polkit.question()
        # The same serial once more, with other words.
        later = Client.send(client, "Disable", "a{sv}", [options(scope="boot")])
        other = polkit.question()
        assert (asked.action, other.action) == (RUNTIME, BOOT)
        polkit.answer(other, CHALLENGE)
        assert client.failure(later).name == ASK
        assert town.tree.read(NESTED) == "1\n"
        polkit.answer(asked, YES)
        assert client.reply(serial)[0]["nested"] == "off"
    assert not town.tree.root.exists(ZZ)


def test_leave_for_one_guest_is_none_for_another_of_its_name(town: Town, polkit: HeldPolkit) -> None:
    town.prepare(KILL)
    other = town.clients[Caller.OTHER]
    serial = town.send(other, KILL)
    question = polkit.question()
    town.kill(Caller.ACTIVE)
    town.tree.path(f"/run/nestd/console/{Caller.ACTIVE}").unlink()
    town.launch(Caller.ACTIVE, "nobody")
    polkit.answer(question, YES)
    assert other.failure(serial).name == GONE
    assert town.guests()[Caller.ACTIVE]["Owner"] == Caller.NOBODY.uid
    town.kill(Caller.ACTIVE)
    town.tree.path(f"/run/nestd/console/{Caller.ACTIVE}").unlink()


@pytest.mark.parametrize("no_reply", [False, True])
def test_callers_who_vanish_at_once_get_nothing_done(town: Town, polkit: HeldPolkit, no_reply: bool) -> None:
    """nestd may find nobody behind the name any more; polkit says yes to whatever it still heard of."""
    before = town.prepare(DISABLE)
    for _ in range(50):
        with town.logins[Caller.NOBODY].client() as client:
            client.send("Disable", "a{sv}", [options(scope="runtime")], no_reply=no_reply)
    for _ in range(10):  # each a turn of nestd's: the call, who calls, who polkit is, the question
        assert town.root.get("Driver") == "kvm_amd"
    heard = polkit.more()
    for member in heard:
        if member == "CheckAuthorization":
            polkit.answer(polkit.question(), YES)
        else:
            polkit.withdrawn()
    # One that was given up before it was put is withdrawn, too.
    assert heard.count("CheckAuthorization") <= heard.count("CancelCheckAuthorization")
    assert town.root.get("Driver") == "kvm_amd"
    town.assert_untouched(before)
