# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where strangers' words become typed values, and who may do what: one table."""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from nestd import errors, log
from nestd.bus.exported import Call, Exported
from nestd.model import Scope, Waiting
from nestd.wire.library import Variant

SET_RUNTIME = "org.nestd1.set-runtime"
SET_BOOT = "org.nestd1.set-boot"
LAUNCH = "org.nestd1.launch"
MANAGE_GUESTS = "org.nestd1.manage-guests"

_MANAGER = "org.nestd1.Manager"
_GUEST = "org.nestd1.Guest"
_WORDS = {
    "s": "a string",
    "b": "a boolean",
    "u": "an unsigned 32-bit number",
    "i": "a signed 32-bit number",
    "t": "an unsigned 64-bit number",
    "d": "a floating-point number",
    "o": "an object path",
    "as": "a list of strings",
    "a{sv}": "a dictionary",
    "aa{sv}": "a list of dictionaries",
}
_SHOWN = 80
# What polkit's dialog says that is to be done to the guest (data/org.nestd1.policy).
_VERBS = MappingProxyType(
    {
        "Stop": "stop",
        "Kill": "kill",
        "OpenConsole": "open the console of",
        "GetConsoleLog": "read the console of",
    }
)
# Who may write the kernel command line: the names of nestd/nesting/loaders, which start-up does not load.
LOADERS = ("grub", "kernel-install", "grubby", "rpm-ostree", "ostree", "bootc")
_CHANGE_OPTIONS = MappingProxyType(
    {"scope": "s", "dry-run": "b", "when-idle": "b", "replace": "b", "loader": "s"}
)
_REVERT_OPTIONS = MappingProxyType({"dry-run": "b"})
# What polkit's dialog says in place of the action's own words (polkit(8), polkit.message).
_CANCELS = "Authentication is required to cancel the change of nested virtualization that waits."
_REVERTS = (
    "Authentication is required to take back, from the next boot on, what was set for nested virtualization."
)


class Change(NamedTuple):
    """What Enable, Disable or Revert was asked for. `waiting` is the change that it takes the place of.

    `replace`: what somebody else has put on the kernel command line may be taken away. `loader` is one of
    LOADERS; empty: it is found out.
    """

    scope: Scope
    dry_run: bool
    when_idle: bool = False
    waiting: Waiting | None = None
    replace: bool = False
    loader: str = ""


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
    """An exported object that belongs to a user."""

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


def options(given: Mapping[str, Variant], table: Mapping[str, str]) -> dict[str, Any]:
    """The plain values of an a{sv}, held against a table of name and signature.

    Of an option that is given twice, the last counts. InvalidArgs: one is not in the table, or has another
    type; the text says which are known, and which type is wanted.
    """
    values = {}
    for name, value in given.items():
        if name not in table:
            known = ", ".join(sorted(table)) or "none"
            raise errors.InvalidArgs(f"There is no option {_show(name)}. Known options: {known}.")
        wanted = table[name]
        if value.signature != wanted:
            words = f"{_WORDS[wanted]} ({wanted})" if wanted in _WORDS else f"of type {wanted}"
            raise errors.InvalidArgs(
                f"The option {name} must be {words}, not of type {_show(value.signature)}."
            )
        values[name] = value.value
    return values


def change(call: Call, waiting: Waiting | None = None) -> Change:
    """`validate` for Enable and Disable, while `waiting` waits. Raises InvalidArgs."""
    given = options(call.arguments[0], _CHANGE_OPTIONS)
    scope = given.get("scope", Scope.BOTH)
    if scope not in set(Scope):
        known = ", ".join(Scope)
        raise errors.InvalidArgs(f"The option scope must be one of {known}, not {_show(scope)}.")
    loader, replace = given.get("loader", ""), given.get("replace", False)
    if "loader" in given and loader not in LOADERS:
        known = ", ".join(LOADERS)
        raise errors.InvalidArgs(f"The option loader must be one of {known}, not {_show(loader)}.")
    if scope == Scope.RUNTIME and (loader or replace):
        raise errors.InvalidArgs(
            "The options loader and replace are about the kernel command line of the next boot, which the "
            "scope runtime leaves alone: leave them out, or choose the scope boot or both."
        )
    dry_run, when_idle = given.get("dry-run", False), given.get("when-idle", False)
    return Change(Scope(scope), dry_run, when_idle, waiting, replace, loader)


def revert(call: Call, waiting: Waiting | None = None) -> Change:
    """`validate` for Revert, while `waiting` waits. Raises InvalidArgs."""
    given = options(call.arguments[0], _REVERT_OPTIONS)
    return Change(Scope.BOOT, given.get("dry-run", False), waiting=waiting)


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
        return Demand(_halves(*scopes), {"polkit.message": _REVERTS})
    return Demand(_halves(*scopes), {"nested": "on" if call.member == "Enable" else "off"})


def _cancel(_: Call, request: Waiting | None, __: Exported) -> Demand:
    # A decision about the next boot that was authorized each time is not undone by what polkit has kept.
    return Demand(_halves(Scope.RUNTIME, *([request.scope] if request else [])), {"polkit.message": _CANCELS})


def _halves(*scopes: Scope) -> tuple[str, ...]:
    runtime, boot = (any(each.runtime for each in scopes), any(each.boot for each in scopes))
    return (*[SET_RUNTIME] * runtime, *[SET_BOOT] * boot)


def _launch(call: Call, request: Any, _: Exported) -> Demand:
    only_root = ""
    if request.user:
        only_root = "Only root chooses the guest's user: leave the option user out."
    return Demand((LAUNCH,), {"guest": call.arguments[0]}, only_root=only_root)


def _own_guest(call: Call, _: Any, exported: Exported) -> Demand:
    if not isinstance(exported, Owned):
        raise errors.AccessDenied(f"{call.path} belongs to nobody.")
    details = {"guest": exported.name, "verb": _VERBS[call.member]}
    return Demand((MANAGE_GUESTS,), details, exported.owner)


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
        (_GUEST, "Stop"): _own_guest,
        (_GUEST, "Kill"): _own_guest,
        (_GUEST, "OpenConsole"): _own_guest,
        (_GUEST, "GetConsoleLog"): _own_guest,
    }
)


def _show(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
