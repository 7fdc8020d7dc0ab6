# SPDX-License-Identifier: LGPL-2.1-or-later
"""From messages to handlers and back: validate, authorize, act, reply, and nothing but closed errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from nestd import errors, log, tasks
from nestd.bus.callers import Callers
from nestd.bus.connection import Connection
from nestd.bus.exported import Call, Exported, Result
from nestd.bus.interface import Interface, Method
from nestd.bus.replies import Replies
from nestd.bus.standard import OBJECT_MANAGER, PEER, PROPERTIES, Standard
from nestd.wire import message
from nestd.wire.body import variant
from nestd.wire.header import Flag, Header, Kind

_CALL = int(Kind.CALL)

Authorize = Callable[[Call, Any, Exported], Coroutine[Any, Any, None] | None]


class Dispatcher:
    """Serves exported objects on a connection.

    `interfaces` are those of the XML, `authorize` judges each call of them: it raises, returns None (open
    to everyone, nothing to wait for) or a coroutine. `top` is where ObjectManager is.
    """

    def __init__(
        self,
        connection: Connection,
        interfaces: Mapping[str, Interface],
        authorize: Authorize,
        machine_id: Callable[[], str],
        *,
        top: str = "/org/nestd1",
    ) -> None:
        self._connection = connection
        self._authorize = authorize
        self._standard = Standard(interfaces, top, machine_id)
        self._replies = Replies()
        self._callers = Callers(connection)
        self._complaints = log.Limiter()
        self._effects: set[str] = set()  # the methods that do more than answer
        connection.add_message_handler(self._on_message)

    def export(self, path: str, exported: Exported) -> None:
        """Put an object on the bus. ValueError: its members are not those of the XML, or it is there."""
        self._standard.add(path, exported)
        self._effects |= {name for name, each in exported.methods.items() if not (each.reads or each.pure)}
        if path.startswith(f"{self._standard.top}/"):
            self._signal(OBJECT_MANAGER, "InterfacesAdded", path, self._standard.managed(path))

    def withdraw(self, path: str) -> None:
        """Take an object off the bus. KeyError: it is not there."""
        exported = self._standard.objects.pop(path)
        if path.startswith(f"{self._standard.top}/"):
            self._signal(OBJECT_MANAGER, "InterfacesRemoved", path, [exported.interface])

    def emit(self, path: str, interface: str, member: str, *values: Any) -> None:
        """Send a signal of the XML to everybody. KeyError, ValueError: it is not there, or otherwise."""
        signature = self._standard.interfaces[interface].signals[member]
        serial = self._connection.next_serial()
        self._connection.send(message.signal(serial, path, interface, member, signature, values))

    def changed(self, path: str, interface: str, values: Mapping[str, Any]) -> None:
        """Send PropertiesChanged with these values. KeyError: no such property; ValueError: it is const."""
        described = self._standard.interfaces[interface].properties
        if silent := [name for name in values if described[name].emits in ("const", "false")]:
            raise ValueError(f"{interface}: {silent} never change, the XML says")
        told = {x: variant(described[x].signature, values[x]) for x in values if described[x].emits == "true"}
        invalidated = [name for name in values if name not in told]
        self._signal(PROPERTIES, "PropertiesChanged", interface, told, invalidated, path=path)

    async def close(self) -> None:
        """Cancel what is under way (each caller gets an error), and wait for its end."""
        await self._callers.close()

    def _signal(self, interface: str, member: str, *values: Any, path: str = "") -> None:
        signature = self._standard.own[interface].signals[member]
        serial = self._connection.next_serial()
        data = message.signal(serial, path or self._standard.top, interface, member, signature, values)
        self._connection.send(data)

    def _on_message(self, received: message.Message) -> bool:
        if received.header.kind != _CALL:
            return False
        try:
            reply = self._replies.find(received)
            if reply is None:
                self._serve(received)
            else:
                serial = self._connection.next_serial()
                self._connection.send(message.again(reply, serial, received.header))
        except (Exception, tasks.Cancelled) as error:  # told or logged: see _fail
            self._fail(received.header, error)
        return True

    def _serve(self, received: message.Message) -> None:
        header = received.header
        if not header.wants_reply and (
            header.member not in self._effects or self._callers.full(header.sender)
        ):
            return  # nobody waits for the answer, or for the refusal: this is what floods are made of
        interface, method = self._find(header)
        if received.frame.skipped:
            raise errors.LimitsExceeded("The message is too large: no request of nestd needs so much.")
        if header.signature != method.takes:
            raise errors.InvalidArgs(
                f"{header.member} takes {method.takes or 'nothing'}, not {header.signature or 'nothing'}."
            )
        standard = interface.name in self._standard.own
        try:
            values = received.values()
        except errors.Malformed as error:
            raise errors.InvalidArgs(f"The arguments cannot be read: {error}.") from None
        interactive = bool(header.flags & Flag.ALLOW_INTERACTIVE_AUTHORIZATION)
        call = Call(header.sender, header.path, interface.name, header.member, tuple(values), interactive)
        if standard:
            basis = partial(self._standard.basis, call)
            made_of = basis()
            sent = self._reply(header, method, self._standard.answer(call))
            if sent and made_of is not None:
                self._replies.keep(received, sent, basis, made_of)
        else:
            self._perform(received, method, call)

    def _find(self, header: Header) -> tuple[Interface, Method]:
        """What is called. Raises UnknownObject, UnknownInterface, UnknownMethod, InvalidArgs."""
        path, name, member = header.path, header.interface, header.member
        there = self._standard.at(path)
        if not there and name == PEER:
            there = [self._standard.own[PEER]]
        if not there:
            raise errors.UnknownObject(f"There is no object {path[:200]}; GetManagedObjects lists them.")
        fitting = [each for each in there if name in ("", each.name)]
        if not fitting:
            raise errors.UnknownInterface(f"{path} has no interface {name}; Introspect lists them.")
        fitting = [each for each in fitting if member in each.methods]
        if not fitting:
            raise errors.UnknownMethod(f"{name or path} has no method {member}; Introspect lists them.")
        if len(fitting) > 1:
            raise errors.InvalidArgs(f"{member} is a method of several interfaces: name the one you mean.")
        return fitting[0], fitting[0].methods[member]

    def _perform(self, received: message.Message, method: Method, call: Call) -> None:
        header = received.header
        exported = self._standard.objects[call.path]
        handler = exported.methods[call.member]
        request = handler.validate(call)
        permission = self._authorize(call, request, exported)
        result: Result | None = None
        if permission is None:
            result = handler.act(request, call)
            if not isinstance(result, Coroutine):
                sent = self._reply(header, method, result)
                if sent and handler.pure:
                    self._replies.keep(received, sent, partial(self._basis, call, exported), (request,))
                return
        waiting = permission if permission is not None else result

        def act() -> Result:
            if self._standard.objects.get(call.path) is not exported:
                raise errors.UnknownObject(f"{call.path} went away while authorization was asked for.")
            return handler.act(request, call)

        work = self._finish(header, method, permission, result, act)

        def ended(cancelled: bool) -> None:
            if isinstance(waiting, Coroutine):
                waiting.close()
            if cancelled:
                text = f"{call.member} was interrupted: its caller left, or nestd is being stopped."
                self._fail(header, errors.Failed(text))

        try:
            self._callers.start(call.sender, work, ended, len(received.frame.data))
        except errors.LimitsExceeded:
            ended(False)
            raise

    def _basis(self, call: Call, exported: Exported) -> object:
        """What a pure handler would make its answer of, its caller judged anew. None: nobody can say."""
        if self._standard.objects.get(call.path) is not exported:
            return None
        request = exported.methods[call.member].validate(call)
        permission = self._authorize(call, request, exported)
        if permission is None:
            return (request,)
        permission.close()
        return None

    async def _finish(
        self,
        header: Header,
        method: Method,
        permission: Coroutine[Any, Any, None] | None,
        result: Result | None,
        act: Callable[[], Result],
    ) -> None:
        try:
            if permission is not None:
                await permission
            if result is None:
                result = act()
            self._reply(header, method, await result if isinstance(result, Coroutine) else result)
        except Exception as error:  # closed errors are told, all others are logged: see _fail
            self._fail(header, error)

    def _reply(self, header: Header, method: Method, result: Sequence[Any]) -> bytes:
        """Send a reply if one is wanted. What was sent, for keeping; empty if nothing can be kept."""
        values = list(result)
        # Only methods whose out-arguments are all of simple types give descriptors.
        places = [x for x, code in enumerate(method.gives) if code == "h"]
        fds = [values[x] for x in places]
        for number, place in enumerate(places):
            values[place] = number
        try:
            if not header.wants_reply:
                return b""
            if fds and not self._connection.unix_fds:
                raise errors.Failed("This bus does not pass descriptors.")
            serial = self._connection.next_serial()
            data = message.reply(serial, header, method.gives, values, fds=len(fds))
            self._connection.send(data, fds)
            sent, fds = b"" if fds else data, []
            return sent
        finally:
            for fd in fds:
                os.close(fd)

    def _fail(self, header: Header, error: BaseException) -> None:
        if not isinstance(error, errors.BusError):
            if self._complaints.passes():
                log.exception(f"{header.interface}.{header.member} failed", message_id=log.HANDLER_FAILED)
            error = errors.Failed(
                "nestd met something unforeseen; its journal says what: journalctl -u nestd."
            )
        if header.wants_reply:
            serial = self._connection.next_serial()
            self._connection.send(message.error(serial, header, error.name, str(error)))
