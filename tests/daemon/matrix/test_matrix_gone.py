# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real polkitd, which would allow everything, stopped or killed in the middle of the question."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.daemon.matrix import oracle
from tests.daemon.matrix.oracle import DENIED, REPLY, Caller, Polkit, Request
from tests.daemon.matrix.town import Town
from tests.support.clients import CallError, Client
from tests.support.polkitd import Polkitd

pytestmark = pytest.mark.bus

YES = "polkit.addRule(function() { return polkit.Result.YES; });"
EVERYTHING = [
    (caller, request)
    for caller in Caller
    for request in oracle.requests()
    if not oracle.lacks_account(request, caller)
]
# What the others ask for is not to be done while they wait; root's changes are in test_matrix.py.
WAITING = [
    (caller, request)
    for caller, request in EVERYTHING
    if oracle.actions(request, caller) or not oracle.changes(request)
]


@pytest.fixture
def polkitd(town: Town) -> Iterator[Polkitd]:
    with Polkitd(town.bus, YES, town.active) as polkitd:
        yield polkitd


class Crowd:
    """Everybody asks for everything at once, each with a connection for each call."""

    def __init__(self, town: Town, stack: ExitStack, *, interactive: bool) -> None:
        self.calls: list[tuple[Caller, Request, Client, int]] = []
        for caller, request in WAITING:
            client = stack.enter_context(town.logins[caller].client())
            serial = town.send(client, request, interactive=interactive)
            self.calls.append((caller, request, client, serial))

    def assert_told(self, state: Polkit, *, guarded: bool) -> None:
        """The outcome of each that polkit guards, or of each other, is as the oracle says."""
        for caller, request, client, serial in self.calls:
            if bool(oracle.actions(request, caller)) is guarded:
                try:
                    client.reply(serial, limit=60)
                    told = REPLY
                except CallError as error:
                    told = error.name
                assert told == oracle.expected(request, caller, state), (caller, request.label)


def test_polkit_that_hangs_and_wakes_up_too_late(town: Town, polkitd: Polkitd) -> None:
    before = town.prepare(WAITING[0][1])
    os.kill(polkitd.pid, signal.SIGSTOP)
    with ExitStack() as stack:
        crowd = Crowd(town, stack, interactive=False)
        crowd.assert_told(Polkit.HANGING, guarded=False)  # without waiting for the others
        town.assert_untouched(before)
        crowd.assert_told(Polkit.HANGING, guarded=True)
        town.assert_untouched(before)
        os.kill(polkitd.pid, signal.SIGCONT)
        with town.logins[Caller.OTHER].client() as client:  # it answers this after all the others
            assert client.call("Enable", "a{sv}", [{}])[0]["nested"] == "on"
    town.assert_untouched(town.prepare(WAITING[0][1]))


@pytest.mark.parametrize("interactive", [False, True], ids=["silent", "interactive"])
def test_polkit_that_dies_in_the_middle(town: Town, polkitd: Polkitd, interactive: bool) -> None:
    before = town.prepare(WAITING[0][1])
    os.kill(polkitd.pid, signal.SIGSTOP)
    with ExitStack() as stack:
        crowd = Crowd(town, stack, interactive=interactive)
        crowd.assert_told(Polkit.DYING, guarded=False)
        town.assert_untouched(before)
        os.kill(polkitd.pid, signal.SIGKILL)
        crowd.assert_told(Polkit.DYING, guarded=True)
        town.assert_untouched(before)


def test_callers_who_die_while_polkit_hangs(town: Town, polkitd: Polkitd) -> None:
    before = town.prepare(WAITING[0][1])
    os.kill(polkitd.pid, signal.SIGSTOP)
    with ExitStack() as stack:
        crowd = Crowd(town, stack, interactive=True)
        crowd.assert_told(Polkit.HANGING, guarded=False)
    os.kill(polkitd.pid, signal.SIGCONT)
    with town.logins[Caller.OTHER].client() as client:
        kill = next(
            one for who, one in WAITING if who is Caller.OTHER and one.label == "GetConsoleLog:actives"
        )
        assert client.reply(town.send(client, kill)) != [[]]
    town.assert_untouched(before)


def test_answers_are_not_mixed_up(town: Town, polkitd: Polkitd) -> None:
    """A hanging polkit that allows one user and forbids the other gets both questions at once."""
    polkitd.stop()
    rule = (
        "polkit.addRule(function(action, subject) {"
        '  return subject.user == "mail" ? polkit.Result.YES : polkit.Result.NO;'
        "});"
    )
    request = next(one for _, one in WAITING if one.label == "Disable:both")
    with Polkitd(town.bus, rule, town.active) as judge:
        before = town.prepare(request)
        os.kill(judge.pid, signal.SIGSTOP)
        asked = [
            (caller, town.send(town.clients[caller], request))
            for caller in (Caller.NOBODY, Caller.OTHER, Caller.ACTIVE)
        ]
        assert town.root.get("Driver") == "kvm_amd"
        town.assert_untouched(before)
        os.kill(judge.pid, signal.SIGCONT)
        for caller, serial in asked:
            if caller is Caller.OTHER:
                assert town.clients[caller].reply(serial)[0]["changed"] is True
            else:
                assert town.clients[caller].failure(serial).name == DENIED
