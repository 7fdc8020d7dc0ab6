# SPDX-License-Identifier: LGPL-2.1-or-later
"""Asking polkit (org.freedesktop.PolicyKit1.Authority). Whatever goes wrong, the answer is no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from nestd import errors, tasks
from nestd.host.services import Caller
from nestd.wire import message
from nestd.wire.header import Flag
from nestd.wire.library import Variant

_NAME = "org.freedesktop.PolicyKit1"
_PATH = "/org/freedesktop/PolicyKit1/Authority"
_INTERFACE = "org.freedesktop.PolicyKit1.Authority"
_ALLOW_INTERACTION = 1
_SECONDS = 25.0
_SECONDS_INTERACTIVE = 300.0
_GRACE = 10.0


class Bus(Caller, Protocol):
    """More of what bus/connection.py gives."""

    @property
    def unique_name(self) -> str: ...
    def next_serial(self) -> int: ...
    def send(self, data: bytes, fds: Sequence[int] = ()) -> None: ...
    async def bus(self, member: str, signature: str = "", body: Sequence[object] = ()) -> list[Any]: ...


class Authority:
    """The guard: root passes, everybody else if polkit says so.

    `seconds` is how long polkit may take, and `seconds_interactive` if it may ask somebody; it has no
    limit of its own, and does not answer at all when the caller dies while somebody is asked.
    """

    def __init__(
        self, bus: Bus, *, seconds: float = _SECONDS, seconds_interactive: float = _SECONDS_INTERACTIVE
    ) -> None:
        self._bus = bus
        self._seconds = seconds
        self._seconds_interactive = seconds_interactive
        self._asked = 0

    async def uid_of(self, sender: str) -> int:
        """The user id behind a unique name, as the kernel told the bus. Raises AccessDenied."""
        try:
            [credentials] = await self._bus.bus("GetConnectionCredentials", "s", [sender])
            uid = credentials["UnixUserID"].value
        except (errors.CallFailed, KeyError) as error:
            raise errors.AccessDenied(f"The bus does not know who is asking: {error}.") from error
        return int(uid)

    async def check(self, sender: str, action: str, details: Mapping[str, str], interactive: bool) -> None:
        """Return if the sender may do `action`.

        Raises AccessDenied; InteractiveAuthorizationRequired: somebody would have to be asked, and the
        message did not allow that; Timeout. Cancelling it withdraws the question.
        """
        if await self.uid_of(sender) == 0:
            return
        self._asked += 1
        cancellation = f"{self._bus.unique_name}-{self._asked}"
        subject = ["system-bus-name", {"name": Variant("s", sender)}]
        question = [subject, action, dict(details), _ALLOW_INTERACTION * interactive, cancellation]
        limit = self._seconds_interactive if interactive else self._seconds
        try:
            async with tasks.timeout(limit):
                answer = await self._ask(question, limit + _GRACE)
        except (TimeoutError, tasks.Cancelled) as error:
            self._withdraw(cancellation)
            if isinstance(error, tasks.Cancelled):
                raise
            raise errors.Timeout(
                f"polkit did not decide about {action} within {limit:g} s. Try again, or do it as root."
            ) from None
        _judge(answer, action)

    async def _ask(self, question: list[Any], limit: float) -> list[Any]:
        try:
            return await self._bus.call(
                _NAME, _PATH, _INTERFACE, "CheckAuthorization", "(sa{sv})sa{ss}us", question, limit=limit
            )
        except errors.CallFailed as error:
            raise errors.AccessDenied(
                f"polkit cannot be asked about {question[1]} ({error.text or error.name}), "
                "and without it only root may do this."
            ) from error

    def _withdraw(self, cancellation: str) -> None:
        flags = Flag.NO_REPLY_EXPECTED | Flag.NO_AUTO_START
        serial = self._bus.next_serial()
        self._bus.send(
            message.call(
                serial, _NAME, _PATH, _INTERFACE, "CancelCheckAuthorization", "s", [cancellation], flags=flags
            )
        )


def _judge(answer: list[Any], action: str) -> None:
    """Return if the answer (bba{ss}) is yes; anything that is no clear yes is a no."""
    match answer:
        case [[True, bool(), dict()]]:
            return
        case [[False, True, dict()]]:
            raise errors.InteractiveAuthorizationRequired(
                f"{action} needs somebody's authorization: allow that they are asked "
                "(ALLOW_INTERACTIVE_AUTHORIZATION), or do it as root."
            )
        case [[False, False, {"polkit.dismissed": _}]]:
            raise errors.AccessDenied(f"The question for {action} was dismissed. Nothing was changed.")
        case [[False, False, dict()]]:
            raise errors.AccessDenied(
                f"polkit does not allow {action}. An administrator's rule can, or do it as root."
            )
    raise errors.AccessDenied(
        f"polkit's answer about {action} makes no sense, and without it only root may do this."
    )
