# SPDX-License-Identifier: LGPL-2.1-or-later
"""org.nestd1.Manager at /org/nestd1: converts and delegates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nestd import __version__, errors
from nestd.bus import boundary
from nestd.bus.exported import Call, Handler, no_request
from nestd.bus.polkit import Authority
from nestd.guests.registry import Registry
from nestd.host.accounts import Accounts
from nestd.host.kmod import Kmod
from nestd.host.root import Root
from nestd.host.units import bus_label_escape
from nestd.model import GuestSpec, Nesting, Status
from nestd.nesting import obstacles
from nestd.nesting.changer import Changer, Outcome
from nestd.nesting.observer import Observer
from nestd.wire.library import Variant

if TYPE_CHECKING:
    from nestd.guests.launch import Launcher

PATH = "/org/nestd1"
INTERFACE = "org.nestd1.Manager"
GUESTS = f"{PATH}/guest"
# The account that QEMU runs as when root launches a guest and names no other.
SYSTEM_ACCOUNT = "nestd"


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """Launch, validated; who QEMU runs as depends on the caller and comes later.

    `user` is empty where the option was not given.
    """

    spec: GuestSpec
    user: str


class Manager:
    """The manager object: reads from the observer, changes through the changer, launches guests.

    `launcher` gives the one that launches, and is called for the first time when somebody does.
    """

    interface = INTERFACE

    def __init__(
        self,
        observer: Observer,
        changer: Changer,
        launcher: Callable[[], Launcher],
        registry: Registry,
        authority: Authority,
        root: Root,
        kmod: Kmod,
    ) -> None:
        self._observer = observer
        self._changer = changer
        self._launcher = launcher
        self._registry = registry
        self._authority = authority
        self._accounts = Accounts()
        self._root = root
        self._kmod = kmod
        self.methods: Mapping[str, Handler] = {
            "GetStatus": Handler(self._seen, self._get_status, pure=True),
            "ListHolders": Handler(no_request, self._list_holders),
            "Enable": Handler(boundary.change, lambda asked, _: self._change(Nesting.ON, asked)),
            "Disable": Handler(boundary.change, lambda asked, _: self._change(Nesting.OFF, asked)),
            "Launch": Handler(_launch_request, self._launch),
            "GetGuest": Handler(lambda call: call.arguments[0], self._get_guest),
        }

    @property
    def state(self) -> Status:
        """What the properties are made of."""
        return self._observer.status

    def properties(self) -> Mapping[str, Any]:
        """Every property, from the last reading."""
        return properties_of(self._observer.status)

    def _seen(self, _: Call) -> tuple[Status, int]:
        """What GetStatus tells: the last reading, and the reference count, which changes without an event."""
        status = self._observer.status
        return status, self._kmod.refcnt(status.driver) if status.driver else 0

    def _get_status(self, seen: tuple[Status, int], _: Call) -> Sequence[Any]:
        status, users = seen
        return [
            {
                "version": Variant("s", __version__),
                "extension": Variant("s", str(status.extension)),
                "driver": Variant("s", status.driver),
                "driver-state": Variant("s", str(status.driver_state)),
                "nested": Variant("s", str(status.nested)),
                "nested-at-boot": Variant("s", str(status.nested_at_boot)),
                "policy": Variant("s", str(status.policy)),
                "reboot-required": Variant("b", status.reboot_required),
                "obstacle": Variant("s", str(status.obstacle)),
                "obstacle-meaning": Variant("s", obstacles.meaning(status.obstacle, status.driver)),
                "obstacle-remedy": Variant("s", obstacles.remedy(status.obstacle, status.driver)),
                "virtualization": Variant("s", status.virtualization),
                "parameters": Variant("a{ss}", dict(status.parameters)),
                "kvm-api": Variant("i", status.kvm_api),
                "guest-extension": Variant("b", status.guest_extension),
                "users": Variant("u", users),
                "boot-source": Variant("s", status.boot_source),
                "overridden": Variant("as", list(status.overridden)),
            }
        ]

    def _list_holders(self, _: None, __: Call) -> Sequence[Any]:
        from nestd.host.holders import holders  # noqa: PLC0415 -- start-up does not need it

        return [[(each.pid, each.comm, each.unit, each.machine) for each in holders(self._root)]]

    async def _change(self, nested: Nesting, asked: boundary.Change) -> Sequence[Any]:
        from nestd.nesting import plan  # noqa: PLC0415 -- start-up does not need it

        outcome = await self._changer.change(plan.Wish(nested, asked.scope), asked.dry_run)
        return [_told(outcome)]

    async def _launch(self, asked: LaunchRequest, call: Call) -> Sequence[Any]:
        user = await self._user_for(asked, call)
        # In the middle of a reload there is no truth to be told yet, and KVM must not be asked.
        await self._changer.settle()
        status = self._observer.refresh().status
        if asked.spec.require_nesting and status.nested is not Nesting.ON:
            raise errors.NestingOff(_nesting_off(status))
        record = await self._launcher().launch(replace(asked.spec, user=user), status.extension)
        return [guest_path(record.name)]

    async def _user_for(self, asked: LaunchRequest, call: Call) -> str:
        """The account that the guest runs as: the caller's own, unless root says otherwise."""
        uid = await self._authority.uid_of(call.sender)
        if uid == 0:
            return asked.user or SYSTEM_ACCOUNT
        if asked.user:
            raise errors.AccessDenied("Only root chooses the guest's user: leave the option user out.")
        account = await asyncio.to_thread(self._accounts.by_uid, uid)
        if account is None:
            raise errors.InvalidArgs(
                f"There is no account with the user id {uid}, which asks: no guest can run as it."
            )
        return account.name

    def _get_guest(self, name: str, _: Call) -> Sequence[Any]:
        return [guest_path(self._registry.get(name).name)]


def guest_path(name: str) -> str:
    """The object path of the guest of that name."""
    return f"{GUESTS}/{bus_label_escape(name)}"


def properties_of(status: Status) -> dict[str, Any]:
    """The interface's properties, for a status."""
    return {
        "Version": __version__,
        "Extension": str(status.extension),
        "Driver": status.driver,
        "DriverState": str(status.driver_state),
        "Nested": str(status.nested),
        "NestedAtBoot": str(status.nested_at_boot),
        "Policy": str(status.policy),
        "RebootRequired": status.reboot_required,
        "Obstacle": str(status.obstacle),
        "Virtualization": status.virtualization,
    }


def _launch_request(call: Call) -> LaunchRequest:
    from nestd.guests import request  # noqa: PLC0415 -- start-up does not need it

    name, raw = call.arguments
    options = boundary.options(raw, request.OPTIONS)
    options["disks"] = [boundary.options(disk, request.DISK_OPTIONS) for disk in options.get("disks", ())]
    user = options.get("user", "")
    return LaunchRequest(request.guest_spec(name, user, options), user)


def _told(outcome: Outcome) -> dict[str, Variant]:
    status = outcome.status
    return {
        "changed": Variant("b", outcome.changed),
        "nested": Variant("s", str(status.nested)),
        "nested-at-boot": Variant("s", str(status.nested_at_boot)),
        "reboot-required": Variant("b", status.reboot_required),
        "steps": Variant("as", list(outcome.steps)),
    }


def _nesting_off(status: Status) -> str:
    if status.obstacle:
        words = obstacles.sentence(status.obstacle, status.driver)
        return f"Guests cannot nest here: {words} Or launch with require-nesting false."
    return (
        f"Nesting is {status.nested}, so the guest would run without {status.extension}. Turn it on first "
        "(`nestctl enable`), or launch with require-nesting false."
    )
