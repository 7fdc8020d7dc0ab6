# SPDX-License-Identifier: LGPL-2.1-or-later
"""[Export] of nestd.conf: what the files say while nestd changes, drifts, has guests, reloads and ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nestd import __version__
from tests.daemon.matrix.town import Town
from tests.support.clients import LIMIT, Client, options
from tests.support.daemon import Daemon, by_hand
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

CONFIG = "/etc/nestd/nestd.conf"
PROM = "/var/lib/prometheus/node-exporter/nestd.prom"
FEATURES = "/etc/kubernetes/node-feature-discovery/features.d/nestd"
BOTH = f"[Export]\nPrometheusTextfile={PROM}\nNodeFeatureFile={FEATURES}\n"
LABEL = "feature.node.kubernetes.io/nestd-"


def prepare(tree: Tree, settings: str) -> None:
    for path in (PROM, FEATURES):
        tree.path(path).parent.mkdir(parents=True)
    tree.write(CONFIG, settings)


def metrics(tree: Tree) -> dict[str, float]:
    """The samples that are not 0, as Prometheus's own client reads them; {} if there is no file."""
    path = tree.path(PROM)
    if not path.exists():
        return {}
    found = {}
    for family in text_string_to_metric_families(path.read_text()):  # type: ignore[no-untyped-call]
        assert family.type == "gauge" and family.documentation
        for sample in family.samples:
            name = sample.name.removeprefix("nestd_")
            if name != "info":
                name = " ".join([name, *sample.labels.values()])
            found[name] = sample.value
    return {name: value for name, value in found.items() if value}


def until(tree: Tree, *names: str) -> None:
    """Wait until these are 1 and nothing else is, but what is always so here."""
    end = time.monotonic() + LIMIT
    wanted = dict.fromkeys(("info", *names), 1.0)
    while metrics(tree) != wanted:
        assert time.monotonic() < end, (metrics(tree), wanted)
        time.sleep(0.02)


def until_labelled(tree: Tree, **features: str) -> None:
    """The same for features: these are among them. They are written behind the metrics."""
    end = time.monotonic() + LIMIT
    wanted = {f"{LABEL}{name.replace('_', '-')}={value}" for name, value in features.items()}
    while not (tree.path(FEATURES).exists() and wanted <= set(tree.read(FEATURES).splitlines())):
        assert time.monotonic() < end, (tree.read(FEATURES), wanted)
        time.sleep(0.02)


@pytest.fixture
def tree(tree: Tree) -> Tree:
    prepare(tree, BOTH)
    return tree


@pytest.fixture
def root(bus: PrivateBus, tree: Tree, tools: Tools) -> Iterator[Client]:
    with Daemon(bus, tree), Client(bus.address) as client:
        until(tree, "nested", "guest_extension", "nested_at_boot", "policy unmanaged")
        yield client
    assert not tree.path(PROM).exists() and not tree.path(FEATURES).exists(), "they go when it ends"


def test_a_change_is_told(root: Client, tree: Tree) -> None:
    text = tree.read(PROM)
    assert f'version="{__version__}",extension="svm",driver="kvm_amd",driver_state="loaded"' in text
    until_labelled(tree, nested="on", extension="svm", driver="kvm_amd", drift="false")
    root.call("Disable", "a{sv}", [{}])
    until(tree, "policy off")
    until_labelled(tree, nested="off", nested_at_boot="off")
    root.call("Enable", "a{sv}", [options(scope="boot")])
    until(tree, "nested_at_boot", "policy on")
    assert sorted(path.name for path in tree.path(PROM).parent.iterdir()) == ["nestd.prom"]


def test_what_waits_is_told(root: Client, tree: Tree) -> None:
    tree.replace("/sys/module/kvm_amd/refcnt", "1\n")
    now = ("nested", "guest_extension", "nested_at_boot", "policy unmanaged")
    root.call("Disable", "a{sv}", [options(when_idle=True)])
    until(tree, *now, "pending_change")
    root.call("CancelPending")
    until(tree, *now)


def test_drift_is_told_and_its_end(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    with Daemon(bus, tree) as daemon, Client(bus.address) as root:
        root.call("Disable", "a{sv}", [{}])
        until(tree, "policy off")
        by_hand(tools, "rmmod", "kvm_amd")
        daemon.uevent("remove", "kvm_amd")
        by_hand(tools, "modprobe", "kvm_amd", "nested=1")
        daemon.uevent("add", "kvm_amd")
        until(tree, "nested", "guest_extension", "policy off", "drift")
        until_labelled(tree, drift="true")
        root.call("Disable", "a{sv}", [{}])
        until(tree, "policy off")


def test_guests_are_counted_and_the_settings_are_followed() -> None:
    with Town() as town:
        now = ("nested", "guest_extension", "nested_at_boot", "policy unmanaged")
        town.daemon.notified("READY=1")
        town.launch("one", "games")
        assert metrics(town.tree) == {}
        prepare(town.tree, BOTH.replace(FEATURES, "none"))
        os.kill(town.daemon.pid, signal.SIGHUP)
        until(town.tree, *now, "guests running")
        town.kill("one")
        until(town.tree, *now)
        town.launch("two", "games")
        until(town.tree, *now, "guests running")
        assert not town.tree.path(FEATURES).exists()
        town.tree.write(CONFIG, "[Export]\nPrometheusTextfile=none\n")
        os.kill(town.daemon.pid, signal.SIGHUP)
        end = time.monotonic() + LIMIT
        while town.tree.path(PROM).exists():
            assert time.monotonic() < end
            time.sleep(0.02)
