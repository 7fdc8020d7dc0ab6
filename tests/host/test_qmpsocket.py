# SPDX-License-Identifier: LGPL-2.1-or-later
"""QMP with peers that are QEMU, that are somebody else's, and that mean ill."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nestd import tasks
from nestd.errors import Malformed
from nestd.host.qmpsocket import NotTheGuest, QmpRefused, QmpSocket, connect
from tests.support import loop

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
OURS = os.getuid()


@contextmanager
def _peer(path: Path, behave: Callable[[socket.socket], None]) -> Iterator[None]:
    """A peer that listens at `path` and treats its one client as `behave` does, in a thread."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(20)
                try:
                    behave(connection)
                except (BrokenPipeError, ConnectionResetError):
                    return  # the client had enough, which is what most of these tests want

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(30)


def _answers(*lines: bytes) -> Callable[[socket.socket], None]:
    """Greets, and answers each command with the next of `lines`; then waits for the client to go."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        for line in lines:
            connection.recv(4096)
            connection.sendall(line)
        while connection.recv(4096):
            continue

    return behave


def _says(data: bytes) -> Callable[[socket.socket], None]:
    """Says that, unasked, and listens until the client goes."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(data)
        while connection.recv(4096):
            continue

    return behave


def _ask(path: Path, limit: float = 20.0) -> object:
    async def ask() -> object:
        async with QmpSocket(connect(str(path), OURS), limit) as qmp:
            return await qmp.execute("query-status")

    return loop.run(ask())


def test_events_and_strangers_answers_are_passed_over(tmp_path: Path) -> None:
    lines = (
        b'{"event": "X"}\n{"return": {}, "id": 1}\n',
        b'{"return": "stale", "id": 1}\n{"event": "Y"}\r\n{"retu',
    )

    def behave(connection: socket.socket) -> None:
        connection.sendall(GREETING[:10])
        connection.sendall(GREETING[10:])
        for line in lines:
            connection.recv(4096)
            connection.sendall(line)
        connection.sendall(b'rn": {"status": "running"}, "id": 2}\r\n')

    with _peer(tmp_path / "qmp", behave):
        assert _ask(tmp_path / "qmp") == {"status": "running"}


def test_who_says_much_at_once_keeps_nobody_else_waiting() -> None:
    async def ask() -> None:
        ours, its = socket.socketpair()
        with its:
            ours.setblocking(False)
            # All of it lies there before anything is read, so that nothing has to be waited for.
            its.sendall(GREETING + b'{"return": {}, "id": 1}\n' + b'{"event": "X"}\n' * 500)
            its.shutdown(socket.SHUT_WR)
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await tasks.sleep(0)

            another = tasks.create_task(other())
            with pytest.raises(ConnectionResetError):
                async with QmpSocket(ours, 20.0) as qmp:
                    await qmp.execute("query-status")
            another.cancel()
            await tasks.wait({another})
            assert turns >= 500

    loop.run(ask())


def test_a_refusal(tmp_path: Path) -> None:
    refusal = b'{"error": {"class": "GenericError", "desc": "not now"}, "id": 2}\n'
    with _peer(tmp_path / "qmp", _answers(b'{"return": {}, "id": 1}\n', refusal)):
        with pytest.raises(QmpRefused, match="query-status: not now"):
            _ask(tmp_path / "qmp")


@pytest.mark.parametrize(
    "behave",
    [
        _answers(b"no json\n"),
        _answers(b'{"return": {}, "id": 1}\n', b"[[[[\n"),
        _says(b'{"return": {}, "id": 1}\n'),
        _says(b"x" * (3 << 20)),
        _says(GREETING + b'{"event": "X"}\n' * 2000),
    ],
)
def test_peers_that_are_no_qemu(tmp_path: Path, behave: Callable[[socket.socket], None]) -> None:
    with _peer(tmp_path / "qmp", behave):
        with pytest.raises(Malformed):
            _ask(tmp_path / "qmp")


@pytest.mark.parametrize("start", [b"", GREETING[:7]])
def test_a_peer_that_hangs_up(tmp_path: Path, start: bytes) -> None:
    with _peer(tmp_path / "qmp", lambda connection: connection.sendall(start)):
        with pytest.raises(ConnectionResetError):
            _ask(tmp_path / "qmp")


def _drip(connection: socket.socket) -> None:
    connection.settimeout(0.01)
    for _ in range(2000):
        connection.sendall(b" ")
        try:
            if not connection.recv(1):
                return
        except TimeoutError:
            continue


@pytest.mark.parametrize("behave", [lambda connection: connection.recv(1), _answers(), _drip])
def test_a_peer_that_takes_its_time(tmp_path: Path, behave: Callable[[socket.socket], None]) -> None:
    with _peer(tmp_path / "qmp", behave):
        with pytest.raises(TimeoutError):
            _ask(tmp_path / "qmp", limit=0.2)


def _nothing(path: Path) -> None:
    assert not path.exists()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("real"))


@pytest.mark.parametrize(
    ("make", "error"),
    [(_nothing, FileNotFoundError), (_fifo, NotTheGuest), (Path.touch, NotTheGuest), (_link, NotTheGuest)],
)
def test_names_that_are_not_the_guests_socket(
    tmp_path: Path, make: Callable[[Path], None], error: type[Exception]
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "real"))
        server.listen(1)
        make(tmp_path / "qmp")
        with pytest.raises(error):
            connect(str(tmp_path / "qmp"), OURS)


def test_a_socket_that_nobody_serves(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "qmp"))
    with pytest.raises(ConnectionRefusedError):
        connect(str(tmp_path / "qmp"), OURS)


def test_a_queue_that_is_full(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "qmp"))
        server.listen(0)
        with connect(str(tmp_path / "qmp"), OURS):
            with pytest.raises(BlockingIOError):
                connect(str(tmp_path / "qmp"), OURS)


def test_a_socket_of_another_owner(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "qmp"))
        server.listen(1)
        with pytest.raises(NotTheGuest, match="not a socket of uid 65534"):
            connect(str(tmp_path / "qmp"), 65534)


@pytest.mark.parametrize("owner", [61184])
def test_a_socket_that_somebody_else_serves(tmp_path: Path, owner: int) -> None:
    """The file is the guest's, the listener is not: as when its user moves another's socket there."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "qmp"))
        server.listen(1)
        os.chown(tmp_path / "qmp", owner, owner)
        with pytest.raises(NotTheGuest, match=f"served by uid {OURS}, not by uid {owner}"):
            connect(str(tmp_path / "qmp"), owner)


def test_a_descriptor_goes_with_its_command(tmp_path: Path) -> None:
    got: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        for number in (1, 2):
            _, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 4)
            for descriptor in descriptors:
                with socket.socket(fileno=descriptor) as handed:
                    handed.sendall(b"came with %d" % number)
            connection.sendall(b'{"return": {}, "id": %d}\r\n' % number)
        while connection.recv(4096):
            continue

    async def hand() -> None:
        ours, its = socket.socketpair()
        with ours:
            async with QmpSocket(connect(str(tmp_path / "qmp"), OURS), 20) as qmp:
                with its:
                    await qmp.execute("getfd", {"fdname": "x"}, its.fileno())
                got.append(ours.recv(100))
                assert ours.recv(100) == b""  # it was a copy, and there is no other

    with _peer(tmp_path / "qmp", behave):
        loop.run(hand())
    assert got == [b"came with 2"]


def test_the_connection_is_not_inherited(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "qmp"))
        server.listen(1)
        with connect(str(tmp_path / "qmp"), OURS) as connection:
            code = f"import os; os.fstat({connection.fileno()})"
            done = subprocess.run(
                [sys.executable, "-c", code], close_fds=False, capture_output=True, check=False
            )
            assert b"Bad file descriptor" in done.stderr
