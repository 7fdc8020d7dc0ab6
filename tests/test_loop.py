# SPDX-License-Identifier: LGPL-2.1-or-later
"""The loop itself, turn by turn: order, fairness, descriptors that come and go, timers, signals."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from threading import Thread

import pytest

from nestd.loop import Handle, Loop, running


class Faults(list[tuple[str, BaseException]]):
    """What nobody foresaw."""

    def add(self, what: str, error: BaseException) -> None:
        self.append((what, error))


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def loop(faults: Faults) -> Iterator[Loop]:
    loop = Loop(faults.add)
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a stream, neither of which blocks."""
    one, other = socket.socketpair()
    for each in (one, other):
        each.setblocking(False)
    yield one, other
    one.close()
    other.close()


def sleeping(loop: Loop) -> bool:
    """Whether nothing ends the loop's next turn before a timer does."""
    woken: list[str] = []
    timer = loop.call_later(0.05, woken.append, "timer")
    loop.turn()
    timer.cancel()
    return bool(woken)


def test_callbacks_run_in_order_and_those_they_ask_for_in_the_next_turn(loop: Loop) -> None:
    seen: list[object] = []

    def first() -> None:
        seen.append(1)
        loop.call_soon(seen.append, 3)

    loop.call_soon(first)
    loop.call_soon(seen.append, 2)
    loop.turn()
    assert seen == [1, 2]
    loop.turn()
    assert seen == [1, 2, 3]


def test_callbacks_without_end_do_not_keep_a_descriptor_waiting(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    seen: list[str] = []

    def again() -> None:
        seen.append("callback")
        loop.call_soon(again)

    loop.call_soon(again)
    loop.add_reader(ours.fileno(), lambda: seen.append(ours.recv(9).decode()))
    loop.turn()
    theirs.send(b"data")
    loop.turn()
    assert seen == ["callback", "data", "callback"]


def test_a_handle_that_is_cancelled_is_not_called(loop: Loop) -> None:
    seen: list[str] = []
    handles: list[Handle] = []

    def cancel() -> None:
        handles[0].cancel()

    loop.call_soon(cancel)
    handles.append(loop.call_soon(seen.append, "never"))
    loop.call_soon(seen.append, "last")
    loop.turn()
    cancel()
    assert seen == ["last"]


def test_timers_come_in_the_order_of_their_times_and_never_early(loop: Loop) -> None:
    seen: list[int] = []
    for number, delay in enumerate((0.03, 0.01, 0.02, 0.01)):
        loop.call_later(delay, seen.append, number)
    loop.run_until(lambda: len(seen) == 4)
    assert seen == [1, 3, 2, 0]


def test_a_timer_for_now_waits_for_what_was_asked_before(loop: Loop) -> None:
    seen: list[str] = []
    loop.call_soon(seen.append, "soon")
    loop.call_later(0, seen.append, "now")
    loop.call_later(-1, seen.append, "past")
    loop.turn()
    assert seen == ["soon", "now", "past"]


def test_a_timer_that_is_cancelled_wakes_nobody(loop: Loop) -> None:
    seen: list[str] = []
    early = loop.call_later(0.001, seen.append, "never")
    loop.call_later(0.05, seen.append, "late")
    early.cancel()
    early.cancel()
    loop.turn()
    assert seen == ["late"]


def test_a_timer_that_is_cancelled_by_one_due_with_it(loop: Loop) -> None:
    seen: list[str] = []
    timers: list[Handle] = []

    def cancel() -> None:
        timers[0].cancel()

    loop.call_later(0.001, cancel)
    timers.append(loop.call_later(0.001, seen.append, "never"))
    loop.call_later(0.02, seen.append, "over")
    loop.run_until(lambda: bool(seen))
    assert seen == ["over"]


def test_an_idle_loop_sleeps_through(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    loop.add_reader(pair[0].fileno(), lambda: None)
    loop.add_signal_handler(signal.SIGUSR1, lambda: None)
    assert sleeping(loop)
    assert sleeping(loop)


def test_a_reader_is_called_until_all_is_read(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    seen: list[bytes] = []
    loop.add_reader(ours.fileno(), lambda size: seen.append(ours.recv(size)), 1)
    theirs.send(b"ab")
    loop.turn()
    loop.turn()
    assert seen == [b"a", b"b"]
    assert sleeping(loop)


def test_a_reader_is_told_of_the_end(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    seen: list[bytes] = []
    loop.add_reader(ours.fileno(), lambda: seen.append(ours.recv(9)))
    theirs.close()
    loop.turn()
    assert seen == [b""]


def test_reader_and_writer_of_one_descriptor_are_apart(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    seen: list[str] = []
    fd = ours.fileno()
    theirs.send(b"x")
    loop.add_reader(fd, lambda: seen.append("read" + ours.recv(9).decode()))
    loop.add_writer(fd, seen.append, "write")
    loop.turn()
    assert seen == ["readx", "write"]
    loop.remove_writer(fd)
    loop.remove_writer(fd)
    assert sleeping(loop)
    theirs.send(b"y")
    loop.turn()
    assert seen[2:] == ["ready"]
    loop.add_writer(fd, seen.append, "again")
    loop.remove_reader(fd)
    theirs.send(b"z")
    loop.turn()
    assert seen[3:] == ["again"]


def test_the_second_reader_takes_the_place_of_the_first(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    seen: list[str] = []
    loop.add_reader(pair[0].fileno(), seen.append, "first")
    loop.add_reader(pair[0].fileno(), seen.append, "second")
    pair[1].send(b"x")
    loop.turn()
    assert seen == ["second"]


@pytest.mark.parametrize("how", ["reader", "writer", "itself"])
def test_what_is_removed_in_a_turn_is_not_called_in_it(loop: Loop, how: str) -> None:
    ends = [socket.socketpair() for _ in range(2)]
    seen: list[int] = []

    def one(number: int) -> None:
        seen.append(number)
        for ours, _ in ends:
            loop.remove_reader(ours.fileno())
            loop.remove_writer(ours.fileno())

    for number, (ours, theirs) in enumerate(ends):
        theirs.send(b"x")
        if how != "writer":
            loop.add_reader(ours.fileno(), one, number)
        if how != "reader":
            loop.add_writer(ours.fileno(), one, number)
    loop.turn()
    assert len(seen) == 1
    assert sleeping(loop)
    for ours, theirs in ends:
        ours.close()
        theirs.close()


def test_a_number_that_is_used_again_in_the_same_turn(loop: Loop) -> None:
    """What came for the old descriptor is not told to the reader of the new one."""
    old = [socket.socketpair() for _ in range(2)]
    new: list[tuple[socket.socket, socket.socket]] = []
    seen: list[str] = []
    places = [ours.fileno() for ours, _ in old]

    def replace(number: int) -> None:
        seen.append("old")
        for ours, _ in old:
            loop.remove_reader(ours.fileno())
        old[1 - number][0].close()
        fresh = socket.socketpair()
        new.append(fresh)
        assert fresh[0].fileno() == places[1 - number]
        loop.add_reader(fresh[0].fileno(), seen.append, "new")

    for number, (ours, theirs) in enumerate(old):
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), replace, number)
    loop.turn()
    assert seen == ["old"]
    new[0][1].send(b"x")
    loop.turn()
    assert seen == ["old", "new"]
    for pair in (*old, *new):
        for each in pair:
            each.close()


def test_a_descriptor_that_was_closed_first(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    seen: list[bytes] = []
    fd = ours.fileno()
    loop.add_reader(fd, seen.append, b"never")
    ours.close()
    theirs.close()
    assert sleeping(loop)
    loop.remove_reader(fd)
    loop.remove_reader(fd)
    fresh, peer = socket.socketpair()
    assert fresh.fileno() == fd
    loop.add_reader(fd, lambda: seen.append(fresh.recv(1)))
    peer.send(b"x")
    loop.turn()
    fresh.close()  # without being removed
    peer.close()
    fresh, peer = socket.socketpair()
    loop.add_reader(fd, lambda: seen.append(fresh.recv(1)))
    peer.send(b"y")
    loop.turn()
    assert seen == [b"x", b"y"]
    fresh.close()
    peer.close()


def test_what_cannot_be_waited_for_is_refused(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = os.open(tmp_path_factory.mktemp("f") / "file", os.O_CREAT | os.O_RDWR)
    with pytest.raises(PermissionError):
        loop.add_reader(file, lambda: None)
    loop.remove_reader(file)
    os.close(file)
    with pytest.raises(OSError, match="Bad file descriptor"):
        loop.add_reader(file, lambda: None)


def test_more_descriptors_than_one_turn_tells_of(loop: Loop) -> None:
    ends = [socket.socketpair() for _ in range(200)]
    seen: set[int] = set()
    for number, (ours, theirs) in enumerate(ends):
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), seen.add, number)
    for _ in range(8):
        loop.turn()
    assert len(seen) == len(ends)
    for pair in ends:
        for each in pair:
            each.close()


@pytest.mark.parametrize("error", [ValueError, KeyError, MemoryError])
def test_what_a_callback_raises_is_told_and_the_others_run(
    loop: Loop, faults: Faults, pair: tuple[socket.socket, socket.socket], error: type[Exception]
) -> None:
    seen: list[str] = []

    def fail() -> None:
        raise error("why")

    loop.call_soon(fail)
    loop.call_soon(seen.append, "soon")
    loop.add_writer(pair[0].fileno(), fail)
    loop.add_writer(pair[1].fileno(), seen.append, "writer")
    loop.turn()
    assert seen == ["writer", "soon"]
    assert [type(failure) for _, failure in faults] == [error, error]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_gets_out(loop: Loop, faults: Faults, error: type[BaseException]) -> None:
    def stop() -> None:
        raise error

    loop.call_soon(stop)
    with pytest.raises(error):
        loop.turn()
    assert not faults


def test_signals_are_told_on_the_loop_each_with_its_own(loop: Loop) -> None:
    seen: list[str] = []
    before = signal.getsignal(signal.SIGUSR1)
    loop.add_signal_handler(signal.SIGUSR1, lambda: seen.append("one"))
    loop.add_signal_handler(signal.SIGUSR2, lambda: seen.append("two"))
    loop.add_signal_handler(signal.SIGUSR2, lambda: seen.append("another"))
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert not seen
    loop.run_until(lambda: len(seen) == 2)
    assert seen == ["one", "another"]
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_wakes_a_loop_that_sleeps(loop: Loop) -> None:
    seen: list[str] = []
    loop.add_signal_handler(signal.SIGALRM, lambda: seen.append("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    loop.run_until(lambda: bool(seen))
    assert seen == ["alarm"]


def test_signals_belong_to_the_main_thread(loop: Loop) -> None:
    caught: list[str] = []

    def elsewhere() -> None:
        try:
            loop.add_signal_handler(signal.SIGUSR1, lambda: None)
        except ValueError as error:
            caught.append(str(error))

    thread = Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in caught[0]
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_without_a_loop_there_is_none() -> None:
    with pytest.raises(RuntimeError, match="no event loop"):
        running()


def test_a_closed_loop_calls_nothing(faults: Faults) -> None:
    seen: list[int] = []
    loop = Loop(faults.add)
    add: Callable[..., object] = seen.append
    loop.call_soon(add, 1)
    timer = loop.call_later(60, add, 2)
    loop.close()
    timer.cancel()
    with pytest.raises(ValueError, match="closed epoll"):
        loop.turn()
    assert not seen
