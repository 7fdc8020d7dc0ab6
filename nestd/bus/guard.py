# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may do what: one table, and what judges each call by it."""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from nestd import errors, log
from nestd.bus import questions
from nestd.bus.boundary import Change
from nestd.bus.exported import Call, Exported
from nestd.model import Scope, Waiting

SET_RUNTIME = "org.nestd1.set-runtime"
SET_BOOT = "org.nestd1.set-boot"
LAUNCH = "org.nestd1.launch"
LAUNCH_RAW = "org.nestd1.launch-raw"
MANAGE_GUESTS = "org.nestd1.manage-guests"

_MANAGER = "org.nestd1.Manager"
_GUEST = "org.nestd1.Guest"
_LAB = "org.nestd1.Lab"


class Demand(NamedTuple):
    """What a call needs: all of these polkit actions, unless `owner` calls. None: open to everyone.

    `only_root`: what others than root are told, and nobody is asked for them.
    """

    actions: tuple[str, ...] = ()
    details: Mapping[str, str] = MappingProxyType({})
    owner: int | None = None
    only_root: str = ""


Rule = Callable[[Call, Any, Exported], Demand]


@runtime_checkable
class Owned(Protocol):
    """The state of an exported object that belongs to a user."""

    @property
    def owner(self) -> int:
        """The user id."""

    @property
    def name(self) -> str:
        """What it is called, for the person who is asked."""


class Judge(Protocol):
    """What bus/polkit.py gives."""

    async def check(self, sender: str, action: str, details: Mapping[str, str], interactive: bool) -> None:
        """Return if the action is allowed. Raises AccessDenied and its like."""

    async def uid_of(self, sender: str) -> int:
        """The user id behind a unique name. Raises AccessDenied: nobody knows."""


class Guard:
    """Judges each call by the table; a member that is not in it is refused."""

    def __init__(self, judge: Judge, rules: Mapping[tuple[str, str], Rule] | None = None) -> None:
        self._judge = judge
        self._rules = RULES if rules is None else rules
        self._complaints = log.Limiter()

    def __call__(self, call: Call, request: Any, exported: Exported) -> Coroutine[Any, Any, None] | None:
        """None: open to everyone. Else a coroutine that returns if the caller may, or raises."""
        rule = self._rules.get((call.interface, call.member))
        if rule is None:
            raise errors.AccessDenied(f"{call.member} is not open to anybody: no rule says who may call it.")
        demand = rule(call, request, exported)
        return self._check(call, demand) if demand.actions else None

    async def _check(self, call: Call, demand: Demand) -> None:
        if demand.owner is not None and await self._judge.uid_of(call.sender) == demand.owner:
            return
        if demand.only_root and await self._judge.uid_of(call.sender) != 0:
            raise errors.AccessDenied(demand.only_root)
        for action in demand.actions:
            try:
                await self._judge.check(call.sender, action, demand.details, call.interactive)
            except errors.BusError as error:
                if self._complaints.passes():
                    log.info(
                        f"{call.member} was refused: {error}",
                        message_id=log.DENIED,
                        action=action,
                        sender=call.sender,
                    )
                raise


def _open(_: Call, __: Any, ___: Exported) -> Demand:
    return Demand()


def _nesting(call: Call, request: Change, _: Exported) -> Demand:
    if request.dry_run:
        return Demand()
    # What waits is forgotten with it, and to cancel its other half needs that half's action.
    scopes = (request.scope, *([request.waiting.scope] if request.waiting else []))
    if call.member == "Revert":
        return Demand(_halves(*scopes), questions.details(questions.REVERTS))
    return Demand(_halves(*scopes), {"nested": "on" if call.member == "Enable" else "off"})


def _cancel(_: Call, request: Waiting | None, __: Exported) -> Demand:
    # A decision about the next boot that was authorized each time is not undone by what polkit has kept.
    halves = _halves(Scope.RUNTIME, *([request.scope] if request else []))
    return Demand(halves, questions.details(questions.CANCELS))


def _halves(*scopes: Scope) -> tuple[str, ...]:
    runtime, boot = (any(each.runtime for each in scopes), any(each.boot for each in scopes))
    return (*[SET_RUNTIME] * runtime, *[SET_BOOT] * boot)


def _launch(call: Call, request: Any, _: Exported) -> Demand:
    only_root = ""
    if request.user:
        only_root = "Only root chooses the guest's user: leave the option user out."
    # In place of the other: it is asked for each time, and says that nobody has checked what QEMU is told.
    action = LAUNCH_RAW if request.spec.extra_args else LAUNCH
    if call.member == "CreateLab":
        question = questions.CREATES_RAW if action is LAUNCH_RAW else questions.CREATES
        details = questions.details(question, lab=call.arguments[0], nodes=str(request.nodes))
    else:
        details = {"guest": call.arguments[0]}
    return Demand((action,), details, only_root=only_root)


def _probe(call: Call, request: Any, _: Exported) -> Demand:
    only_root = "Only root chooses the guest's user: leave the option user out." if request.user else ""
    return Demand((LAUNCH,), questions.details(questions.PROBES[call.member]), only_root=only_root)


def _own_guest(call: Call, _: Any, exported: Exported) -> Demand:
    guest = _owned(call, exported)
    return Demand((MANAGE_GUESTS,), questions.about_guest(call.member, guest.name), guest.owner)


def _own_lab(call: Call, _: Any, exported: Exported) -> Demand:
    lab = _owned(call, exported)
    return Demand((MANAGE_GUESTS,), questions.about_lab(call.member, lab.name), lab.owner)


def _owned(call: Call, exported: Exported) -> Owned:
    if not isinstance(exported.state, Owned):
        raise errors.AccessDenied(f"{call.path} belongs to nobody.")
    return exported.state


# A comment to each would repeat data/org.nestd1.xml, which says who may call what.
RULES: Mapping[tuple[str, str], Rule] = MappingProxyType(
    {
        (_MANAGER, "GetStatus"): _open,
        (_MANAGER, "Diagnose"): _open,
        (_MANAGER, "ListHolders"): _open,
        (_MANAGER, "GetGuest"): _open,
        (_MANAGER, "Enable"): _nesting,
        (_MANAGER, "Disable"): _nesting,
        (_MANAGER, "Revert"): _nesting,
        (_MANAGER, "CancelPending"): _cancel,
        (_MANAGER, "Launch"): _launch,
        (_MANAGER, "CreateLab"): _launch,
        (_MANAGER, "GetLab"): _open,
        (_MANAGER, "Verify"): _probe,
        (_MANAGER, "MeasureExit"): _probe,
        (_MANAGER, "CheckCpu"): _probe,
        (_LAB, "Start"): _own_lab,
        (_LAB, "Stop"): _own_lab,
        (_LAB, "Remove"): _own_lab,
        (_GUEST, "Stop"): _own_guest,
        (_GUEST, "Kill"): _own_guest,
        (_GUEST, "OpenConsole"): _own_guest,
        (_GUEST, "GetConsoleLog"): _own_guest,
    }
)
