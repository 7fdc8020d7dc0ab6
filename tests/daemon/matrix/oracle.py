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
MANAGER, GUEST, LAB = "org.nestd1.Manager", "org.nestd1.Guest", "org.nestd1.Lab"
RUNTIME, BOOT = "org.nestd1.set-runtime", "org.nestd1.set-boot"
LAUNCH, MANAGE = "org.nestd1.launch", "org.nestd1.manage-guests"
LAUNCH_RAW = "org.nestd1.launch-raw"
KEPT = frozenset({RUNTIME, LAUNCH, MANAGE})  # for a while, in an active session

REPLY = "reply"
DENIED = "org.freedesktop.DBus.Error.AccessDenied"
ASK = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
TIMEOUT = "org.freedesktop.DBus.Error.Timeout"
# What the town's machine gives to who may: its /dev/kvm is a file, and the tools for a probe are not there.
BEYOND = {
    "Verify": "org.nestd1.Error.VerifyFailed",
    "MeasureExit": "org.nestd1.Error.NotSupported",
}


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
    """One way to call a method. `owner`: whose guest, or lab, it is called on."""

    label: str
    interface: str
    member: str
    signature: str
    body: list[Any] = field(default_factory=list)
    owner: Caller | None = None

    @property
    def path(self) -> str:
        kind = "lab" if self.interface == LAB else "guest"
        return PATH if self.owner is None else f"{PATH}/{kind}/{self.owner.value}"


# The guest that Launch is asked for; those that are there are called as their owners are.
NEW = "fresh"
_NESTING = {
    "both": {},
    "runtime": options(scope="runtime"),
    "boot": options(scope="boot"),
    "dry": options(dry_run=True),
}
_ALONE = {"nodes": Variant("u", 1)}
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
    (MANAGER, "Launch"): {
        "": [NEW, {}],
        "raw": [NEW, {"extra-args": Variant("as", ["-rtc", "base=utc"])}],
        "user": [NEW, options(user="mail")],
    },
    (MANAGER, "CreateLab"): {
        "": [NEW, _ALONE],
        "raw": [NEW, {**_ALONE, "extra-args": Variant("as", ["-rtc", "base=utc"])}],
        "user": [NEW, {**_ALONE, **options(user="mail")}],
    },
    (MANAGER, "GetLab"): {"": [Caller.ACTIVE.value]},
    (MANAGER, "Verify"): {"": [{}], "user": [options(user="mail")]},
    (MANAGER, "MeasureExit"): {"": [{}]},
    (MANAGER, "CheckCpu"): {"": [{}], "user": [options(user="mail")]},
    (LAB, "Start"): {"": [{}]},
    (LAB, "Stop"): {"": [{"timeout": Variant("t", 20)}]},
    (LAB, "Remove"): {"": []},
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
        owners = (None,) if interface == MANAGER else (Caller.ACTIVE, Caller.OTHER)
        called = f"Lab{member}" if interface == LAB else member
        for owner in owners:
            for word, body in _SAMPLES[interface, member].items():
                label = ":".join(part for part in (called, word, owner and f"{owner}s") if part)
                found.append(Request(label, interface, member, signature, body, owner))
    return found


def is_roots_alone(request: Request) -> bool:
    """Whether others are refused without anybody being asked."""
    return request.label in ("Launch:user", "CreateLab:user", "Verify:user", "CheckCpu:user")


def lacks_account(request: Request, caller: Caller) -> bool:
    """Whether it would run as the account nestd, which only the package makes."""
    starts = ("Launch", "Launch:raw", "CreateLab", "CreateLab:raw", "Verify", "CheckCpu")
    return caller is Caller.ROOT and request.label in starts


def actions(request: Request, caller: Caller) -> tuple[str, ...]:
    """What polkit has to allow; empty if nobody needs to be asked."""
    if caller is Caller.ROOT or request.label.endswith(":dry") or request.owner is caller:
        return ()
    if is_roots_alone(request):
        return ()
    if request.interface in (GUEST, LAB):
        return (MANAGE,)
    if request.member in ("Launch", "CreateLab"):
        return (LAUNCH_RAW,) if request.label.endswith(":raw") else (LAUNCH,)
    if request.member in ("Verify", "MeasureExit", "CheckCpu"):
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
    done = BEYOND.get(request.member, REPLY)
    if is_roots_alone(request) and caller is not Caller.ROOT:
        return DENIED
    if not actions(request, caller):
        return done
    match polkit:
        case Polkit.ALLOWED | Polkit.GRANTED:
            return done
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
    reading = ("GetStatus", "Diagnose", "ListHolders", "GetGuest", "GetLab", "GetConsoleLog")
    proving = ("Verify", "MeasureExit", "CheckCpu")
    return request.member not in (*reading, *proving) and not request.label.endswith(":dry")
