# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemons that are measured, and the calls that stand for GetAll and GetStatus there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.clients import MANAGER, NAME, PATH, PROPERTIES, Message


@dataclass(frozen=True, slots=True)
class Service:
    """A daemon and its name. One that would touch the machine's network is given a network of its own."""

    title: str
    name: str
    argv: Sequence[str]
    get_all: Message
    get_status: Message


def _get_all(name: str, path: str, interface: str) -> Message:
    return Message(name, path, PROPERTIES, "GetAll", signature="s", body=[interface])


# The installed program (data/nestd) does no more than this; -I would not find the source tree.
_NESTD = "from nestd.__main__ import main; raise SystemExit(main([]))"
_HOSTNAME = "org.freedesktop.hostname1"
_TUNED = "com.redhat.tuned"
_FIREWALL = "org.fedoraproject.FirewallD1"
_BOLT = "org.freedesktop.bolt"

SERVICES = (
    Service(
        "nestd", NAME, ["/usr/bin/python3", "-c", _NESTD],
        _get_all(NAME, PATH, MANAGER),
        Message(NAME, PATH, MANAGER, "GetStatus"),
    ),
    Service(
        "systemd-hostnamed (C)", _HOSTNAME, ["/usr/lib/systemd/systemd-hostnamed"],
        _get_all(_HOSTNAME, "/org/freedesktop/hostname1", _HOSTNAME),
        Message(_HOSTNAME, "/org/freedesktop/hostname1", _HOSTNAME, "Describe"),
    ),
    Service(
        "boltd (C)", _BOLT, ["/usr/libexec/boltd"],
        _get_all(_BOLT, "/org/freedesktop/bolt", "org.freedesktop.bolt1.Manager"),
        Message(_BOLT, "/org/freedesktop/bolt", "org.freedesktop.bolt1.Manager", "ListDevices"),
    ),
    Service(
        "tuned (Python)", _TUNED, ["/usr/sbin/tuned", "--profile", "", "--log=/dev/null"],
        Message(_TUNED, "/Tuned", f"{_TUNED}.control", "is_running"),
        Message(_TUNED, "/Tuned", f"{_TUNED}.control", "active_profile"),
    ),
    Service(
        "firewalld (Python)", _FIREWALL, ["unshare", "--net", "/usr/sbin/firewalld", "--nofork", "--nopid"],
        _get_all(_FIREWALL, "/org/fedoraproject/FirewallD1", _FIREWALL),
        Message(_FIREWALL, "/org/fedoraproject/FirewallD1", _FIREWALL, "getDefaultZone"),
    ),
)  # fmt: skip
