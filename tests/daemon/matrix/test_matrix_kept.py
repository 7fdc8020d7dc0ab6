# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the real polkit keeps (auth_admin_keep): never more than the one danger that was agreed to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.daemon.matrix import oracle
from tests.daemon.matrix.oracle import ASK, BOOT, KEPT, LAUNCH, MANAGE, RUNTIME, Caller, Request
from tests.daemon.matrix.town import Town
from tests.support.clients import Client
from tests.support.polkitd import Agent, Polkitd, forget, question_of

pytestmark = pytest.mark.bus

LABELS = {RUNTIME: "Disable:runtime", BOOT: "Disable:boot", LAUNCH: "Launch", MANAGE: "Stop:others"}
SAMPLE = {
    action: next(one for one in oracle.requests() if one.label == label) for action, label in LABELS.items()
}
BOTH = next(one for one in oracle.requests() if one.label == "Enable:both")


@pytest.fixture(scope="module")
def agent(town: Town) -> Iterator[Agent]:
    """Somebody at the screen of the active user's session, and a polkit with no rules."""
    with Polkitd(town.bus, active=town.active) as polkitd:
        with Agent(town.bus, Caller.ACTIVE.uid, town.logins[Caller.ACTIVE], in_session=True) as agent:
            yield agent
        assert polkitd.complaints() == ""


@pytest.fixture
def client(town: Town, agent: Agent) -> Client:
    """The active user's, for whom nothing is kept."""
    client = town.clients[Caller.ACTIVE]
    forget(client)
    return client


def agreed(town: Town, client: Client, agent: Agent, request: Request, *questions: str) -> None:
    """It is done once each of these questions, and no other, was answered with yes."""
    before = town.prepare(request)
    serial = town.send(client, request, interactive=True)
    for action in questions:
        asked = agent.asked()
        assert question_of(asked)["action"] == action
        town.assert_untouched(before)
        agent.approve(asked)
    client.reply(serial)
    town.assert_done(request, Caller.ACTIVE, before)
    assert agent.client.owner_of("org.nestd1") and agent.client.calls_so_far() == []


def refused(town: Town, client: Client, request: Request) -> None:
    """Somebody would have to be asked."""
    before = town.prepare(request)
    assert client.failure(town.send(client, request)).name == ASK
    town.assert_untouched(before)


@pytest.mark.parametrize("action", sorted(SAMPLE))
def test_one_yes_is_a_yes_to_one_danger(town: Town, agent: Agent, client: Client, action: str) -> None:
    for request in SAMPLE.values():
        refused(town, client, request)
    agreed(town, client, agent, SAMPLE[action], action)
    for other, request in SAMPLE.items():
        if other == action and action in KEPT:
            agreed(town, client, agent, request)
        else:
            refused(town, client, request)


def test_the_boot_configuration_is_asked_for_each_time(town: Town, agent: Agent, client: Client) -> None:
    for _ in range(2):
        agreed(town, client, agent, SAMPLE[BOOT], BOOT)
    agreed(town, client, agent, BOTH, RUNTIME, BOOT)
    agreed(town, client, agent, BOTH, BOOT)


def test_what_one_agreed_to_is_nothing_to_others(town: Town, agent: Agent, client: Client) -> None:
    """Neither to another user, nor to another process of the same user outside of the session."""
    agreed(town, client, agent, SAMPLE[RUNTIME], RUNTIME)
    for caller in (Caller.OTHER, Caller.NOBODY):
        refused(town, town.clients[caller], SAMPLE[RUNTIME])
    with Client(town.bus.address, Caller.ACTIVE.uid) as outside:
        refused(town, outside, SAMPLE[RUNTIME])


@pytest.mark.parametrize("caller", [Caller.OTHER, Caller.NOBODY])
def test_nothing_is_kept_for_who_has_no_session(town: Town, agent: Agent, caller: Caller) -> None:
    client = town.clients[caller]
    request = SAMPLE[RUNTIME]
    with Agent(town.bus, caller.uid, town.logins[caller]) as own:
        for _ in range(2):
            before = town.prepare(request)
            serial = town.send(client, request, interactive=True)
            own.approve(own.asked())
            client.reply(serial)
            town.assert_done(request, caller, before)
        refused(town, client, request)
