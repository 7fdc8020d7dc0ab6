# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every member of the XML, for every kind of caller, with the real polkitd in every state.

What holds the answer back, and what dies, is in test_matrix_questions.py and test_matrix_gone.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests.daemon.matrix import oracle
from tests.daemon.matrix.oracle import ASK, DENIED, REPLY, Caller, Polkit, Request
from tests.daemon.matrix.town import OWNED, Town
from tests.support.clients import PATH, CallError, Client, Variant
from tests.support.polkitd import Agent, Polkitd, forget, question_of

pytestmark = pytest.mark.bus

READ_ONLY = "org.freedesktop.DBus.Error.PropertyReadOnly"
PROPERTIES = "org.freedesktop.DBus.Properties"
STATES = [state for state in Polkit if state not in (Polkit.HANGING, Polkit.DYING)]
RULES = {
    Polkit.ALLOWED: "polkit.addRule(function() { return polkit.Result.YES; });",
    Polkit.DENIED: "polkit.addRule(function() { return polkit.Result.NO; });",
}
CASES = [
    (caller, request)
    for caller in Caller
    for request in oracle.requests()
    if not oracle.lacks_account(request, caller)
]


@dataclass
class Office:
    """A town with polkit in one state; an agent for each user, where somebody is there to be asked."""

    town: Town
    state: Polkit
    agents: dict[Caller, Agent] = field(default_factory=dict)


@pytest.fixture(scope="module", params=STATES)
def office(town: Town, request: pytest.FixtureRequest) -> Iterator[Office]:
    office = Office(town, request.param)
    with ExitStack() as stack:
        if office.state is not Polkit.ABSENT:
            polkitd = stack.enter_context(Polkitd(town.bus, RULES.get(office.state, ""), town.active))
        if office.state not in (Polkit.ABSENT, Polkit.UNATTENDED):
            for caller, login in town.logins.items():
                agent = Agent(town.bus, caller.uid, login, in_session=caller is Caller.ACTIVE)
                office.agents[caller] = stack.enter_context(agent)
        yield office
        assert office.state is Polkit.ABSENT or polkitd.complaints() == ""


def outcome(client: Client, serial: int) -> str:
    try:
        client.reply(serial)
    except CallError as error:
        assert error.text.isprintable() and error.text.endswith((".", ")"))
        return error.name
    return REPLY


@pytest.mark.parametrize(("caller", "request_"), CASES, ids=[f"{who}-{what.label}" for who, what in CASES])
def test_method(office: Office, caller: Caller, request_: Request) -> None:
    town, state, agent = office.town, office.state, office.agents.get(caller)
    client = town.clients[caller]
    before = town.prepare(request_)
    if caller is Caller.ACTIVE and state is Polkit.GRANTED:
        forget(client)
    serial = town.send(client, request_, interactive=state.interactive)
    for action in oracle.questions(request_, caller, state):
        assert agent is not None
        asked = agent.asked()
        assert question_of(asked)["action"] == action
        town.assert_untouched(before)  # nothing is done while it is asked
        (agent.approve if state is Polkit.GRANTED else agent.dismiss)(asked)
    told = outcome(client, serial)
    assert told == oracle.expected(request_, caller, state)
    if told == REPLY:
        town.assert_done(request_, caller, before)
    else:
        assert told in (DENIED, ASK, *oracle.BEYOND.values())
        town.assert_untouched(before)
    if agent is not None:
        assert agent.client.owner_of("org.nestd1")  # what was sent to it before this is here now
        assert agent.client.calls_so_far() == []


@pytest.mark.parametrize("caller", Caller)
def test_reading_is_open_and_nothing_can_be_set(office: Office, caller: Caller) -> None:
    town, client = office.town, office.town.clients[caller]
    before = town.prepare(Request("", "", "", ""))
    described: dict[str, dict[str, str]] = {}
    for interface, each in oracle.members("property"):
        assert each.get("access") == "read"
        described.setdefault(interface, {})[each.get("name", "")] = each.get("type", "")
    objects = {PATH: oracle.MANAGER, **{f"{PATH}/guest/{owner}": oracle.GUEST for owner in OWNED}}
    objects |= {f"{PATH}/lab/{owner}": oracle.LAB for owner in OWNED}
    for path, interface in objects.items():
        how = {"path": path, "interface": PROPERTIES}
        values = {
            name: client.call("Get", "ss", [interface, name], **how)[0] for name in described[interface]
        }
        assert client.call("GetAll", "s", [interface], **how) == [values]
        [managed] = client.call("GetManagedObjects", interface="org.freedesktop.DBus.ObjectManager")
        assert path == PATH or managed[path] == {interface: values}
        for name, signature in described[interface].items():
            value = Variant(signature, values[name])
            assert client.error("Set", "ssv", [interface, name, value], **how).name == READ_ONLY
        [xml] = client.call("Introspect", path=path, interface="org.freedesktop.DBus.Introspectable")
        assert f'<interface name="{interface}">' in xml
        assert client.call("Ping", path=path, interface="org.freedesktop.DBus.Peer") == []
        assert client.call("GetMachineId", path=path, interface="org.freedesktop.DBus.Peer") == ["0" * 32]
    town.assert_untouched(before)
