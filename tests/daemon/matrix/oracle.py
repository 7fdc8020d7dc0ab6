# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may do what, once more: written from the interface's own text, not from nestd's table.

`requests` comes from data/org.nestd1.xml; `expected` is the oracle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.support.clients import ALICE, BOB, NOBODY, PATH, ROOT, Variant, options

XML = Path(__file__).resolve().parents[3] / "data" / "org.nestd1.xml"
MANAGER, GUEST = "org.nestd1.Manager", "org.nestd1.Guest"
RUNTIME, BOOT = "org.nestd1.set-runtime", "org.nestd1.set-boot"
LAUNCH, MANAGE = "org.nestd1.launch", "org.nestd1.manage-guests"
KEPT = frozenset({RUNTIME, LAUNCH, MANAGE})  # for a while, in an active session

REPLY = "reply"
DENIED = "org.freedesktop.DBus.Error.AccessDenied"
ASK = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
TIMEOUT = "org.freedesktop.DBus.Error.Timeout"


class Caller(StrEnum):
    """Who calls; the active user has a local session, which polkit sees as active. The others have none."""

    ROOT = "root"
    ACTIVE = "active"
    OTHER = "other"
    NOBODY = "nobody"

    @property
    def uid(self) -> int:
        return {"root": ROOT, "active": ALICE, "other": BOB, "nobody": NOBODY}[self.value]


class Polkit(StrEnum):
    """What polkit does; in CHALLENGE the message forbids to ask, in UNATTENDED nobody is there for it."""

    ALLOWED = "allowed"
    DENIED = "denied"
    CHALLENGE = "challenge"
    UNATTENDED = "unattended"
    GRANTED = "granted"
    DISMISSED = "dismissed"
    ABSENT = "absent"
    HANGING = "hanging"
    DYING = "dying"

    @property
    def interactive(self) -> bool:
        """Whether the message allows to ask somebody: where that must not help, too."""
        return self not in (Polkit.ALLOWED, Polkit.CHALLENGE, Polkit.HANGING)


@dataclass(frozen=True, slots=True)
class Request:
    """One way to call a method. `owner`: whose guest it is called on."""

    label: str
    interface: str
    member: str
    signature: str
    body: list[Any] = field(default_factory=list)
    owner: Caller | None = None

    @property
    def path(self) -> str:
        return PATH if self.owner is None else f"{PATH}/guest/{self.owner.value}"


# The guest that Launch is asked for; those that are there are called as their owners are.
NEW = "fresh"
_NESTING = {
    "both": {},
    "runtime": options(scope="runtime"),
    "boot": options(scope="boot"),
    "dry": options(dry_run=True),
}
# Requests before which the driver is held, and the scope of a Disable that then waits for it, if one does.
HELD = {"waits": "", "waiting": "both", "displaces": "runtime"}
# How each method is called: the arguments, by a word for them.
_SAMPLES: dict[tuple[str, str], dict[str, list[Any]]] = {
    (MANAGER, "GetStatus"): {"": []},
    (MANAGER, "Diagnose"): {"": []},
    (MANAGER, "ListHolders"): {"": []},
    (MANAGER, "GetGuest"): {"": [Caller.ACTIVE.value]},
    (MANAGER, "Enable"): {word: [given] for word, given in _NESTING.items()},
    (MANAGER, "Disable"): {
        **{word: [given] for word, given in _NESTING.items()},
        "waits": [options(when_idle=True)],
        "displaces": [options(scope="boot")],
    },
    (MANAGER, "Revert"): {"": [{}], "dry": [options(dry_run=True)], "displaces": [{}]},
    (MANAGER, "CancelPending"): {"": [], "waiting": []},
    (MANAGER, "Launch"): {"": [NEW, {}], "user": [NEW, options(user="mail")]},
    (GUEST, "Stop"): {"": [{"timeout": Variant("t", 20)}]},
    (GUEST, "Kill"): {"": []},
    (GUEST, "OpenConsole"): {"": []},
    (GUEST, "GetConsoleLog"): {"": []},
}


def members(kind: str) -> Iterator[tuple[str, ElementTree.Element]]:
    """Every method, property or signal of the XML with its interface's name."""
    for interface in ElementTree.parse(XML).iter("interface"):
        yield from ((interface.get("name", ""), each) for each in interface.iter(kind))


def requests() -> list[Request]:
    """Every method of the XML, each in the ways that differ in what they need. KeyError: it has no sample."""
    found = []
    for interface, method in members("method"):
        member = method.get("name", "")
        signature = "".join(
            arg.get("type", "") for arg in method.iter("arg") if arg.get("direction", "in") == "in"
        )
        owners = (Caller.ACTIVE, Caller.OTHER) if interface == GUEST else (None,)
        for owner in owners:
            for word, body in _SAMPLES[interface, member].items():
                label = ":".join(part for part in (member, word, owner and f"{owner}s") if part)
                found.append(Request(label, interface, member, signature, body, owner))
    return found


def is_roots_alone(request: Request) -> bool:
    """Whether others are refused without anybody being asked."""
    return request.label == "Launch:user"


def actions(request: Request, caller: Caller) -> tuple[str, ...]:
    """What polkit has to allow; empty if nobody needs to be asked."""
    if caller is Caller.ROOT or request.label.endswith(":dry") or request.owner is caller:
        return ()
    if is_roots_alone(request):
        return ()
    if request.interface == GUEST:
        return (MANAGE,)
    if request.member == "Launch":
        return (LAUNCH,)
    if request.member in ("Enable", "Disable"):
        scopes = {"runtime": (RUNTIME,), "boot": (BOOT,)}
        return scopes.get(request.label.partition(":")[2], (RUNTIME, BOOT))
    if request.member == "Revert":
        return (RUNTIME, BOOT) if request.label.endswith(":displaces") else (BOOT,)
    if request.member == "CancelPending":
        # Whoever takes a decision about the next boot back is asked for that, too.
        return (RUNTIME, BOOT) if request.label.endswith(":waiting") else (RUNTIME,)
    return ()


def expected(request: Request, caller: Caller, polkit: Polkit) -> str:
    """REPLY, or the name of the error."""
    if is_roots_alone(request) and caller is not Caller.ROOT:
        return DENIED
    if not actions(request, caller):
        return REPLY
    match polkit:
        case Polkit.ALLOWED | Polkit.GRANTED:
            return REPLY
        case Polkit.CHALLENGE | Polkit.UNATTENDED:
            return ASK
        case Polkit.HANGING:
            return TIMEOUT
    return DENIED


def questions(request: Request, caller: Caller, polkit: Polkit) -> tuple[str, ...]:
    """What the person is asked, one after the other."""
    asked = actions(request, caller)
    return {Polkit.GRANTED: asked, Polkit.DISMISSED: asked[:1]}.get(polkit, ())


def changes(request: Request) -> bool:
    """Whether it changes something, if it is done."""
    return request.member not in ("GetStatus", "Diagnose", "ListHolders", "GetGuest", "GetConsoleLog") and (
        not request.label.endswith(":dry")
    )
