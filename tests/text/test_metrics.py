# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a fleet's tools read: every word of it, and the formats they want, whatever the values are."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestd.guestmodel import GuestState
from nestd.model import DriverState, Extension, Nesting, Obstacle, Policy, Status
from nestd.text.metrics import Seen, features, prometheus

STATUS = Status(
    extension=Extension.SVM,
    driver="kvm_amd",
    driver_state=DriverState.LOADED,
    nested=Nesting.ON,
    nested_at_boot=Nesting.OFF,
    policy=Policy.OFF,
    reboot_required=False,
    obstacle=Obstacle.NONE,
    virtualization="none",
    parameters={},
    kvm_api=12,
    guest_extension=True,
    users=1,
    boot_source="/etc/modprobe.d/zz-nestd.conf:2",
    overridden=(),
)


def seen(*guests: GuestState, drift: bool = False, pending: bool = False, **changed: Any) -> Seen:
    return Seen("1.2.3", STATUS._replace(**changed), pending, drift, guests)


def parsed(text: str) -> dict[str, float]:
    """The samples by name and labels as they are written; AssertionError for what the format has not.

    exposition_formats.md: each family together, HELP and TYPE once and before its samples, no sample twice, a
    line feed at the end.
    """
    samples: dict[str, float] = {}
    family, families = "", set()
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if helped := re.fullmatch(r"# HELP ([a-z_]+) [^\\\n]+", line):
            family = helped[1]
            assert family not in families
            families.add(family)
        elif typed := re.fullmatch(r"# TYPE ([a-z_]+) gauge", line):
            assert typed[1] == family
        else:
            label = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
            sample = re.fullmatch(rf"([a-z_]+)(?:\{{{label}(?:,{label})*\}})? (\d+)", line)
            assert sample is not None, line
            assert sample[1] == family
            name = line.rpartition(" ")[0]
            assert name not in samples
            samples[name] = float(sample[2])
    return samples


def test_every_metric_of_an_ordinary_machine() -> None:
    found = parsed(prometheus(seen(GuestState.RUNNING, GuestState.RUNNING, GuestState.STOPPING)))
    facts = 'version="1.2.3",extension="svm",driver="kvm_amd",driver_state="loaded",virtualization="none"'
    assert {name: value for name, value in found.items() if value} == {
        f"nestd_info{{{facts}}}": 1,
        "nestd_nested": 1,
        "nestd_guest_extension": 1,
        'nestd_policy{policy="off"}': 1,
        'nestd_guests{state="running"}': 2,
        'nestd_guests{state="stopping"}': 1,
    }
    zero = {name for name, value in found.items() if not value}
    assert {f'nestd_obstacle{{obstacle="{word}"}}' for word in Obstacle if word} < zero
    assert {"nestd_nested_at_boot", "nestd_reboot_required", "nestd_pending_change", "nestd_drift"} < zero


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"nested_at_boot": Nesting.ON}, "nestd_nested_at_boot"),
        ({"reboot_required": True}, "nestd_reboot_required"),
        ({"drift": True}, "nestd_drift"),
        ({"pending": True}, "nestd_pending_change"),
        ({"obstacle": Obstacle.MODULE_SIGNATURE}, 'nestd_obstacle{obstacle="module-signature"}'),
        ({"policy": Policy.UNMANAGED}, 'nestd_policy{policy="unmanaged"}'),
    ],
)
def test_each_has_its_metric(changed: dict[str, Any], name: str) -> None:
    assert parsed(prometheus(seen()))[name] == 0
    assert parsed(prometheus(seen(**changed)))[name] == 1


@pytest.mark.parametrize("word", [Nesting.OFF, Nesting.UNSUPPORTED])
def test_only_on_is_on(word: Nesting) -> None:
    found = parsed(prometheus(seen(nested=word, nested_at_boot=word)))
    assert (found["nestd_nested"], found["nestd_nested_at_boot"]) == (0, 0)


def test_a_label_is_escaped() -> None:
    text = prometheus(seen(virtualization='a"b\\c\nd'))
    assert r'virtualization="a\"b\\c\nd"' in text
    parsed(text)


@given(st.text(), st.text(alphabet=st.characters()))
def test_any_words(driver: str, virtualization: str) -> None:
    parsed(prometheus(seen(driver=driver, virtualization=virtualization)))


def test_the_features() -> None:
    space = "feature.node.kubernetes.io/nestd-"
    assert features(seen(drift=True)).splitlines() == [
        f"{space}nested=on",
        f"{space}nested-at-boot=off",
        f"{space}extension=svm",
        f"{space}driver=kvm_amd",
        f"{space}reboot-required=false",
        f"{space}drift=true",
    ]


def test_what_is_empty_is_no_feature_and_all_are_labels() -> None:
    """A label: 63 characters at most, letters, digits, `-`, `_` and `.`, none of these at the ends."""
    nothing = seen(extension=Extension.NONE, driver="", nested=Nesting.UNSUPPORTED)
    assert "extension" not in features(nothing) and "driver" not in features(nothing)
    for line in (features(nothing) + features(seen())).splitlines():
        name, _, value = line.partition("/")[2].partition("=")
        for word in (name, value):
            assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", word), line
