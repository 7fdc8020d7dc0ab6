# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the manager tells of the status: the properties, GetStatus, and what a change came to."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from nestd import __version__
from nestd.model import Drift, Status, Waiting
from nestd.nesting.changer import Outcome
from nestd.wire.library import Variant


class Seen(NamedTuple):
    """What GetStatus is made of."""

    status: Status
    users: int
    waiting: Waiting | None
    drift: Drift | None


def properties_of(status: Status, waiting: Waiting | None = None) -> dict[str, Any]:
    """The interface's properties, for a status and the change that waits."""
    return {
        "Version": __version__,
        "Extension": str(status.extension),
        "Driver": status.driver,
        "DriverState": str(status.driver_state),
        "Nested": str(status.nested),
        "NestedAtBoot": str(status.nested_at_boot),
        "Policy": str(status.policy),
        "RebootRequired": status.reboot_required,
        "PendingChange": str(waiting.nested) if waiting else "",
        "Obstacle": str(status.obstacle),
        "Virtualization": status.virtualization,
    }


def status_of(seen: Seen) -> dict[str, Variant]:
    """The keys of GetStatus."""
    status, users, waiting, drift = seen
    return {
        **_properties(properties_of(status, waiting)),
        **_waiting(waiting),
        "drift": Variant("s", drift.cause if drift else ""),
        "obstacle-meaning": Variant("s", status.obstacle_meaning),
        "obstacle-remedy": Variant("s", status.obstacle_remedy),
        "parameters": Variant("a{ss}", dict(status.parameters)),
        "kvm-api": Variant("i", status.kvm_api),
        "guest-extension": Variant("b", status.guest_extension),
        "users": Variant("u", users),
        "boot-source": Variant("s", status.boot_source),
        "overridden": Variant("as", list(status.overridden)),
    }


def outcome_of(outcome: Outcome) -> dict[str, Variant]:
    """What Enable and Disable give."""
    status = outcome.status
    return {
        "changed": Variant("b", outcome.changed),
        "nested": Variant("s", str(status.nested)),
        "nested-at-boot": Variant("s", str(status.nested_at_boot)),
        "reboot-required": Variant("b", status.reboot_required),
        "pending": Variant("b", outcome.pending),
        "steps": Variant("as", list(outcome.steps)),
    }


def _properties(values: Mapping[str, Any]) -> dict[str, Variant]:
    """The properties by the names that keys have: NestedAtBoot is nested-at-boot."""
    return {
        "".join(f"-{one.lower()}" if one.isupper() else one for one in name).lstrip("-"): Variant(
            "b" if isinstance(value, bool) else "s", value
        )
        for name, value in values.items()
    }


def _waiting(waiting: Waiting | None) -> dict[str, Variant]:
    if waiting is None:
        return {}
    return {"pending-scope": Variant("s", str(waiting.scope)), "pending-user": Variant("u", waiting.uid)}
