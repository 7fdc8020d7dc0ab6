# SPDX-License-Identifier: LGPL-2.1-or-later
"""A fuzzer over the interface: every member of the XML, with values of the right signature.

It calls as root, so that validation answers and not polkit, on a tree with fake tools, the fake systemd
and the fake QEMU. With another seed, or for longer: tests/attacks/README.md.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from nestd.bus import interface
from nestd.wire.library import Variant
from tests.attacks import fuzzed, values
from tests.attacks.fuzzed import Asked, Fuzzed
from tests.bus.rawclient import RawClient
from tests.support import fakeqemu
from tests.support.daemon import POLICY, Daemon
from tests.support.fakesystemd import FakeSystemd
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

SEED = int(os.environ.get("NESTD_FUZZ_SEED", "3"))
CALLS = int(os.environ.get("NESTD_FUZZ_CALLS", "20000"))
# So many calls are under way at once: nestd takes 16 of each caller that it cannot answer at once.
_AT_ONCE = 20

_MEMBERS = fuzzed.members(interface.parse(interface.installed()))


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    """One call or signal."""
    member = draw(st.sampled_from(_MEMBERS))
    # The guest that there is ends with Kill and with Stop, and starting another takes its time.
    path = draw(values.paths) if member.deadly or draw(st.integers(0, 4)) == 4 else member.path
    proper = member.name in ("Enable", "Disable") and draw(st.booleans())
    if member.name == "Revert" and draw(st.booleans()):
        return Asked(member, path, [{"dry-run": Variant("b", draw(st.booleans()))}])
    return Asked(member, path, draw(values.change() if proper else values.body(member.signature)))


@pytest.fixture
def ground() -> Iterator[Fuzzed]:
    """The daemon on a machine with a guest. The folder's name is short, as sockets are in it."""
    top = Path(tempfile.mkdtemp(prefix="nestd-f-"))
    try:
        top.chmod(0o755)
        tree = Tree(top / "m").amd().module("kvm_amd").write("/etc/machine-id", "0" * 32 + "\n")
        for folder in ("/etc/modprobe.d", "/run/nestd/registry", "/run/nestd/guests", "/var/lib/nestd"):
            tree.path(folder).mkdir(parents=True)
        tree.write("/dev/kvm", "")
        tree.top.chmod(0o755)
        tools = Tools(tree)
        fakeqemu.install(tree.path("/bin"), fakeqemu.Manner.GOOD)
        with PrivateBus(policies=[POLICY]) as bus, FakeSystemd(bus.address, tree.top, tools.folder):
            bus.complaints_expected = True  # dbus-daemon writes down what the policy refused
            with Daemon(bus, tree) as daemon, RawClient(bus.address) as client:
                yield Fuzzed(client, tree, daemon)
    finally:
        shutil.rmtree(top)


def test_every_member_with_any_values(ground: Fuzzed, capsys: pytest.CaptureFixture[str]) -> None:
    """Each call gets one reply or closed error; nothing but what was asked for has changed."""
    with capsys.disabled():
        print(f"\nfuzzing the interface: NESTD_FUZZ_SEED={SEED} NESTD_FUZZ_CALLS={CALLS}")

    @seed(SEED)
    @settings(
        max_examples=-(-CALLS // _AT_ONCE),
        deadline=None,
        database=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
    @given(st.lists(asked(), min_size=_AT_ONCE, max_size=_AT_ONCE))
    def play(calls: list[Asked]) -> None:
        ground.play(calls)

    play()
    ground.judge()
    with capsys.disabled():
        print(f"{ground.calls} calls and signals: {ground.told()}")
    assert ground.calls >= CALLS
    assert ground.waited
