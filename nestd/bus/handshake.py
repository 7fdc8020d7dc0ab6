# SPDX-License-Identifier: LGPL-2.1-or-later
"""From the address of a bus to a socket that it has authenticated."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from nestd import errors, sockets
from nestd.wire import address as addresses
from nestd.wire import sasl


async def connect(address: str) -> tuple[socket.socket, sasl.Agreed]:
    """A non-blocking socket to the first entry of the address that answers, and what was agreed.

    Raises OSError: none can be connected to; Malformed: the address or the handshake is.
    """
    sock = await _open(addresses.sockets(address, os.environ))
    try:
        return sock, await _authenticate(sock)
    except BaseException:
        sock.close()
        raise


async def _open(candidates: Sequence[str]) -> socket.socket:
    failures = []
    for candidate in candidates:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            await sockets.connect(sock, candidate)
        except OSError as error:
            sock.close()
            failures.append(error)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    last = failures[-1]
    raise OSError(last.errno, f"cannot connect to the bus: {last.strerror}", candidates[-1])


async def _authenticate(sock: socket.socket) -> sasl.Agreed:
    await sockets.send(sock, sasl.hello(os.getuid()))
    data = b""
    while True:
        piece = await sockets.receive(sock, 4096)
        if not piece:
            raise errors.Malformed("the bus closed the connection during the handshake")
        data += piece
        agreed = sasl.answer(data)
        if agreed is not None:
            return agreed
