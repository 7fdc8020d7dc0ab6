# SPDX-License-Identifier: LGPL-2.1-or-later
"""org.nestd1.Manager at /org/nestd1: converts and delegates."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from nestd import errors
from nestd.bus import boundary, telling
from nestd.bus.exported import Call, Handler, late, no_request
from nestd.bus.polkit import Authority
from nestd.bus.runas import RunAs
from nestd.bus.scan import Scan
from nestd.guestmodel import GuestSpec
from nestd.guests import places
from nestd.guests.registry import Registry
from nestd.host.kmod import Kmod
from nestd.host.root import Root
from nestd.host.services import bus_label_escape
from nestd.model import Extension, Holder, Nesting, Status, Waiting
from nestd.nesting import obstacles
from nestd.nesting.changer import Changer
from nestd.nesting.keeper import Keeper
from nestd.nesting.observer import Observer
from nestd.nesting.pending import Pending

if TYPE_CHECKING:
    from nestd.bus.labs import LabObjects
    from nestd.guests.launch import Launcher
    from nestd.nesting.diagnosis import Diagnosis

PATH = "/org/nestd1"
INTERFACE = "org.nestd1.Manager"
GUESTS = f"{PATH}/guest"


class LaunchRequest(NamedTuple):
    """Launch, validated; who QEMU runs as depends on the caller and comes later.

    `user` is empty where the option was not given.
    """

    spec: GuestSpec
    user: str


class Manager:
    """The manager object: reads from the observer, changes through the changer, launches guests.

    `launcher` gives the one that launches, and is called for the first time when somebody does;
    so is `diagnosis`, and `proof`, which gives the methods of bus/proof.py, and `labs`.
    """

    interface = INTERFACE

    def __init__(
        self,
        observer: Observer,
        changer: Changer,
        launcher: Callable[[], "Launcher"],
        registry: Registry,
        authority: Authority,
        run_as: RunAs,
        root: Root,
        kmod: Kmod,
        diagnosis: Callable[[], "Diagnosis"],
        pending: Pending,
        keeper: Keeper,
        proof: Callable[[], Mapping[str, Handler]],
        labs: Callable[[], "LabObjects"],
    ) -> None:
        self._observer = observer
        self._changer = changer
        self._launcher = launcher
        self._registry = registry
        self._authority = authority
        self._run_as = run_as
        self._root = root
        self._kmod = kmod
        self._holders = Scan(self._read_holders)
        self._diagnosis = diagnosis
        self._pending = pending
        self._keeper = keeper
        self._labs = labs
        self.methods: Mapping[str, Handler] = {
            "GetStatus": Handler(self._seen, self._get_status, pure=True),
            "Diagnose": Handler(no_request, self._diagnose, reads=True),
            "ListHolders": Handler(no_request, self._list_holders, reads=True),
            "Enable": Handler(self._asked, lambda asked, call: self._change(Nesting.ON, asked, call)),
            "Disable": Handler(self._asked, lambda asked, call: self._change(Nesting.OFF, asked, call)),
            "Revert": Handler(self._reverted, lambda asked, call: self._change(None, asked, call)),
            "CancelPending": Handler(lambda _: self._pending.waiting, self._cancel_pending),
            "Launch": Handler(_launch_request, self._launch),
            "GetGuest": Handler(lambda call: call.arguments[0], self._get_guest, reads=True),
            **{name: late(proof, name, reads=True) for name in ("Verify", "MeasureExit", "CheckCpu")},
            "CreateLab": late(lambda: labs().methods, "CreateLab"),
            "GetLab": late(lambda: labs().methods, "GetLab", reads=True),
        }

    @property
    def state(self) -> tuple[Status, Waiting | None]:
        """What the properties are made of."""
        return self._observer.status, self._pending.waiting

    def properties(self) -> Mapping[str, Any]:
        """Every property, from the last reading."""
        return telling.properties_of(self._observer.status, self._pending.waiting)

    def _seen(self, _: Call) -> telling.Seen:
        """What GetStatus tells: the last reading, and the reference count, which changes without an event."""
        status = self._observer.status
        users = self._kmod.refcnt(status.driver) if status.driver else 0
        return telling.Seen(status, users, self._pending.waiting, self._keeper.drift)

    def _get_status(self, seen: telling.Seen, _: Call) -> Sequence[Any]:
        return [telling.status_of(seen)]

    async def _diagnose(self, _: None, __: Call) -> Sequence[Any]:
        return [[tuple(map(str, check)) for check in await self._diagnosis().run()]]

    async def _list_holders(self, _: None, __: Call) -> Sequence[Any]:
        return [[(each.pid, each.comm, each.unit, each.machine) for each in await self._holders()]]

    def _read_holders(self) -> tuple[Holder, ...]:
        from nestd.host.holders import holders  # noqa: PLC0415 -- start-up does not need it

        return holders(self._root)

    def _asked(self, call: Call) -> boundary.Change:
        return boundary.change(call, self._pending.waiting)

    def _reverted(self, call: Call) -> boundary.Change:
        return boundary.revert(call, self._pending.waiting)

    async def _change(self, nested: Nesting | None, asked: boundary.Change, call: Call) -> Sequence[Any]:
        from nestd.nesting import steps  # noqa: PLC0415 -- start-up does not need it

        wish = steps.Wish(nested, asked.scope, asked.replace, asked.loader)
        if asked.dry_run:
            if asked.when_idle:
                return [telling.outcome_of(await self._pending.change(wish, True, 0))]
            return [telling.outcome_of(await self._changer.change(wish, True))]
        # What is displaced by it was looked at when it was authorized, which may have taken its time.
        if self._pending.waiting not in (asked.waiting, None):
            raise errors.Busy("Another change has begun to wait meanwhile. Look at it, then ask again.")
        if not asked.when_idle:
            return [telling.outcome_of(await self._changer.change(wish, False))]
        uid = await self._authority.uid_of(call.sender)
        return [telling.outcome_of(await self._pending.change(wish, False, uid))]

    async def _cancel_pending(self, judged: Waiting | None, call: Call) -> Sequence[Any]:
        self._pending.cancel(judged, await self._authority.uid_of(call.sender))
        return []

    async def _launch(self, asked: LaunchRequest, call: Call) -> Sequence[Any]:
        spec = asked.spec._replace(user=await self._run_as.account(asked.user, call))
        extension = await self.ready(spec.require_nesting)
        if spec.network.kind == "lab":
            record = await self._labs().labs.join(spec, extension)
        else:
            if self._root.names(places.LABS):  # else nothing of labs is loaded
                self._labs().labs.check_guest(spec.name)
            record = await self._launcher().launch(spec, extension)
        return [guest_path(record.name)]

    async def ready(self, require_nesting: bool) -> Extension:
        """The extension, once guests can be started. NestingOff: they need nesting, and it is not on."""
        # In the middle of a reload there is no truth to be told yet, and KVM must not be asked.
        await self._changer.settle()
        status = self._observer.refresh().status
        if require_nesting and status.nested is not Nesting.ON:
            raise errors.NestingOff(_nesting_off(status))
        return status.extension

    def _get_guest(self, name: str, _: Call) -> Sequence[Any]:
        return [guest_path(self._registry.find(name).name)]


def guest_path(name: str) -> str:
    """The object path of the guest of that name."""
    return f"{GUESTS}/{bus_label_escape(name)}"


def _launch_request(call: Call) -> LaunchRequest:
    from nestd.bus import launchoptions  # noqa: PLC0415 -- start-up does not need it
    from nestd.guests import request  # noqa: PLC0415 -- as above

    name, raw = call.arguments
    options = launchoptions.plain(raw, request.OPTIONS)
    user = options.get("user", "")
    return LaunchRequest(request.guest_spec(name, user, options), user)


def _nesting_off(status: Status) -> str:
    if status.obstacle:
        words = obstacles.sentence(status)
        return f"Guests cannot nest here: {words} Or launch with require-nesting false."
    return (
        f"Nesting is {status.nested}, so the guest would run without {status.extension}. Turn it on first "
        "(`nestctl enable`), or launch with require-nesting false."
    )
