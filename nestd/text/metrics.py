# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a fleet's tools read of this machine: metrics for Prometheus, features for Kubernetes.

Sources: Prometheus, docs/instrumenting/exposition_formats.md, as node_exporter's textfile collector reads it;
node-feature-discovery, docs/usage/customization-guide.md, "Feature files": lines of NAMESPACE/NAME=VALUE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from nestd.guestmodel import GuestState
from nestd.model import Nesting, Obstacle, Policy, Status

_LIVING = (GuestState.STARTING, GuestState.RUNNING, GuestState.STOPPING)
# node-feature-discovery takes it whatever namespaces its administrator has allowed.
_NAMESPACE = "feature.node.kubernetes.io"


class Seen(NamedTuple):
    """What is told. `pending`: a change waits; `guests` has the state of each guest."""

    version: str
    status: Status
    pending: bool
    drift: bool
    guests: tuple[GuestState, ...]


def prometheus(seen: Seen) -> str:
    """The metrics, each with its help and type. Where there is a closed choice, each word has its line."""
    status = seen.status
    facts = {
        "version": seen.version,
        "extension": status.extension,
        "driver": status.driver,
        "driver_state": status.driver_state,
        "virtualization": status.virtualization,
    }
    lines = [
        *_family("info", "What nestd found on this machine; always 1.", [(facts, 1)]),
        *_flag("nested", "Guests get nesting now.", status.nested is Nesting.ON),
        *_flag("nested_at_boot", "The next boot will give nesting.", status.nested_at_boot is Nesting.ON),
        *_flag("guest_extension", "KVM offers the extension to guests.", status.guest_extension),
        *_choice("policy", "What nestd was told to keep.", "policy", Policy, status.policy),
        *_choice("obstacle", "Why nesting cannot be had.", "obstacle", Obstacle, status.obstacle),
        *_flag("reboot_required", "Only a reboot can settle what was changed.", status.reboot_required),
        *_flag("pending_change", "A change waits until nobody uses the driver.", seen.pending),
        *_flag("drift", "The running kernel does not have what nestd was told.", seen.drift),
        *_family(
            "guests",
            "Guests that nestd has started and that are there, by their state.",
            [({"state": state}, seen.guests.count(state)) for state in _LIVING],
        ),
    ]
    return "".join(f"{line}\n" for line in lines)


def features(seen: Seen) -> str:
    """The features, from which node-feature-discovery makes labels; what is empty has none."""
    status = seen.status
    told = {
        "nested": status.nested,
        "nested-at-boot": status.nested_at_boot,
        "extension": status.extension,
        "driver": status.driver,
        "reboot-required": str(status.reboot_required).lower(),
        "drift": str(seen.drift).lower(),
    }
    return "".join(f"{_NAMESPACE}/nestd-{name}={value}\n" for name, value in told.items() if value)


def _flag(name: str, what: str, value: bool) -> Iterator[str]:
    return _family(name, f"{what} 1: yes, 0: no.", [({}, int(value))])


def _choice(
    name: str, what: str, label: str, words: type[Policy] | type[Obstacle], chosen: str
) -> Iterator[str]:
    samples = [({label: str(word)}, int(word == chosen)) for word in words if word]
    return _family(name, f"{what} 1: this one.", samples)


def _family(name: str, what: str, samples: Sequence[tuple[Mapping[str, str], int]]) -> Iterator[str]:
    yield f"# HELP nestd_{name} {what}"
    yield f"# TYPE nestd_{name} gauge"
    for labels, value in samples:
        told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"nestd_{name}{{{told}}} {value}" if told else f"nestd_{name} {value}"


def _escaped(text: str) -> str:
    """As label values are written; what is no Unicode text becomes question marks."""
    told = text.encode("utf-8", "replace").decode()
    return told.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
