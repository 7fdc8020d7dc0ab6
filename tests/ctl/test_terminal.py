# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestctl on a terminal: colours, progress, the console, the password prompt."""

from __future__ import annotations

import os
import re
import signal
import termios
import time
from pathlib import Path

import pytest

from tests.ctl.running import Fake, Terminal, fake_nestd


def test_colours_on_a_terminal(fake: Fake) -> None:
    with Terminal(fake, "status") as terminal:
        assert terminal.end() == 0
    assert "\x1b[32mon\x1b[0m" in terminal.seen


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_where_they_are_not_wanted(fake: Fake, environment: dict[str, str]) -> None:
    with Terminal(fake, "status", environment=environment) as terminal:
        assert terminal.end() == 0
    assert "\x1b" not in terminal.seen


def test_an_empty_no_color_says_nothing(fake: Fake) -> None:
    with Terminal(fake, "status", environment={"NO_COLOR": ""}) as terminal:
        assert terminal.end() == 0
    assert "\x1b[32m" in terminal.seen


def test_errors_are_red(fake: Fake) -> None:
    with Terminal(fake, "show", "nobody") as terminal:
        assert terminal.end() == 1
    assert "\x1b[31mnestctl: no guest of that name\x1b[0m \x1b[2m[GuestNotFound]\x1b[0m" in terminal.seen


def test_progress_while_it_lasts(fake: Fake) -> None:
    fake.fail({"Kill": None})
    with Terminal(fake, "kill", "demo") as terminal:
        terminal.expect("Ending demo (")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == -signal.SIGINT
    assert terminal.seen.endswith("\r\x1b[K")


def test_stopping_shows_what_is_done_and_for_how_long_yet(fake: Fake) -> None:
    fake.fail({"Stop": None})
    with Terminal(fake, "stop", "demo") as terminal:
        terminal.expect("Stopping the unit of demo: it is killed in ")
        terminal.expect("(1 s)")  # another guest's word has come, too
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == -signal.SIGINT
    assert re.search(r"it is killed in (89|9\d) s", terminal.seen) or "killed in 88 s" in terminal.seen
    assert terminal.seen.endswith("\r\x1b[K") and "demo2" not in terminal.seen


def test_a_change_shows_the_step_under_way(fake: Fake) -> None:
    fake.fail({"Enable": None})
    with Terminal(fake, "enable") as terminal:
        terminal.expect("0%: write a file (")
        terminal.expect("(1 s)")  # somebody else's lies have come, too
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == -signal.SIGINT
    assert terminal.seen.endswith("\r\x1b[K")
    assert "lie" not in terminal.seen


@pytest.mark.parametrize(("columns", "width"), [(40, 40), (0, 80)])
def test_a_step_with_many_words_keeps_to_its_line(fake: Fake, columns: int, width: int) -> None:
    fake.fail({"Revert": None})
    with Terminal(fake, "revert", columns=columns) as terminal:
        terminal.expect("25%: run dracut -f \\x1b[2J")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == -signal.SIGINT
    lines = [line for line in terminal.seen.replace("\x1b[K", "").split("\r") if "dracut" in line]
    assert lines and all(len(line) < width and "... (" in line for line in lines)


def test_wide_letters_keep_to_their_line(fake: Fake) -> None:
    fake.fail({"Launch": None})
    with Terminal(fake, "launch", "虚" * 30, columns=40) as terminal:
        terminal.expect("Starting 虚")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == -signal.SIGINT
    lines = [line for line in terminal.seen.replace("\x1b[K", "").split("\r") if "Starting" in line]
    assert lines and all(len(line) + line.count("虚") < 40 for line in lines)


def test_a_change_that_was_quick_leaves_no_trace_of_its_job(fake: Fake) -> None:
    with Terminal(fake, "disable") as terminal:
        assert terminal.end() == 0
    assert "write a file" not in terminal.seen
    assert "Nesting is" in terminal.seen


def test_nobody_listens_where_nobody_looks(fake: Fake) -> None:
    assert fake.run("disable").returncode == 0
    assert [call["member"] for call in fake.calls()] == ["Disable"]


def test_console_in_raw_mode(fake: Fake) -> None:
    with Terminal(fake, "console", "demo") as terminal:
        terminal.expect("demo login: ")
        assert not terminal.attributes()[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        terminal.type(b"who\x03")  # Ctrl-C is the guest's
        terminal.expect("WHO\x03")
        terminal.type(b"x\x1dnot for the guest")
        assert terminal.end() == 0
        assert terminal.attributes() == terminal.before
    assert "Ctrl-] leaves it" in terminal.seen
    assert "Left the console of demo" in terminal.seen
    assert "NOT FOR" not in terminal.seen


def test_console_that_the_guest_closes(fake: Fake) -> None:
    with Terminal(fake, "console", "demo") as terminal:
        terminal.expect("demo login: ")
        terminal.type(b"bye")
        assert terminal.end() == 0
        assert terminal.attributes() == terminal.before
    assert "The guest closed the console of demo" in terminal.seen
    # what it had said before comes first
    assert terminal.seen.index("booted earlier") < terminal.seen.index("demo login: ")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131), (signal.SIGINT, -signal.SIGINT)],
)
def test_console_ended_by_a_signal(fake: Fake, number: signal.Signals, code: int) -> None:
    with Terminal(fake, "console", "demo") as terminal:
        terminal.expect("demo login: ")
        terminal.process.send_signal(number)
        assert terminal.end() == code
        assert terminal.attributes() == terminal.before


def test_a_hail_of_signals_does_not_keep_the_terminal(fake: Fake) -> None:
    """The second would interrupt the giving back, if it were heard."""
    for pause in (0.0, 0.001, 0.01):
        with Terminal(fake, "console", "demo") as terminal:
            terminal.expect("demo login: ")
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT) * 3:
                terminal.process.send_signal(number)
                time.sleep(pause)
            terminal.end()
            assert terminal.attributes() == terminal.before


def test_a_console_that_is_stopped_has_given_the_terminal_back(fake: Fake) -> None:
    with Terminal(fake, "console", "demo") as terminal:
        terminal.expect("demo login: ")
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.until(lambda: terminal.attributes() == terminal.before)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until(lambda: not terminal.attributes()[3] & termios.ECHO)
        terminal.type(b"here\x1d")
        assert terminal.end() == 0
        assert terminal.attributes() == terminal.before


def test_a_console_whose_guest_dies_with_its_daemon(tmp_path: Path) -> None:
    """The socket is the guest's own; that of the fake's guest ends with it, and nobody says a word."""
    with fake_nestd(tmp_path) as fake, Terminal(fake, "console", "demo") as terminal:
        terminal.expect("demo login: ")
        fake.service.kill()
        assert terminal.end() == 0
        assert terminal.attributes() == terminal.before
    assert "The guest closed the console of demo" in terminal.seen


def test_another_escape_key(fake: Fake) -> None:
    with Terminal(fake, "console", "demo", "--escape=^A") as terminal:
        terminal.expect("Ctrl-A leaves it")
        terminal.expect("demo login: ")
        terminal.type(b"x\x1dy")
        terminal.expect("X\x1dY")  # the guest's: it may run such a console, too
        terminal.type(b"\x01")
        assert terminal.end() == 0
    refused = fake.run("console", "demo", "--escape=AB")
    assert refused.returncode == 2 and "no such key" in refused.stderr


def test_the_guest_is_told_nothing_of_the_window(fake: Fake) -> None:
    """A serial line has no word for it: the person is told what to say there."""
    with Terminal(fake, "console", "demo", columns=132) as terminal:
        terminal.expect("stty rows 24 columns 132")
        terminal.expect("demo login: ")
        terminal.resize(40, 100)
        terminal.type(b"x")
        terminal.expect("\x1b[1mX")  # the answer to the key, and to nothing before it
        assert "columns 100" not in terminal.seen
        terminal.type(b"\x1d")
        assert terminal.end() == 0
    assert "Left the console of demo. This window, as it is to be told there: stty rows 40 columns 100" in (
        terminal.seen
    )
    # What the guest may have left on is put back without clearing the screen.
    assert "\x1b[!p" in terminal.seen and "\x1b[2J" not in terminal.seen
    assert "\x1b[?1004l" in terminal.seen  # no reports of the focus, which a shell would take for keys


def test_a_dumb_terminal_gets_no_sequences(fake: Fake) -> None:
    with Terminal(fake, "console", "demo", environment={"TERM": "dumb"}) as terminal:
        terminal.expect("demo login: ")
        terminal.type(b"\x1d")
        assert terminal.end() == 0
    assert "\x1b[!p" not in terminal.seen


def test_console_refused(fake: Fake) -> None:
    fake.fail({"OpenConsole": ("org.nestd1.Error.Busy", "somebody else uses it")})
    with Terminal(fake, "console", "demo") as terminal:
        assert terminal.end() == 5
        assert terminal.attributes() == terminal.before


AGENT = """#!/bin/sh
# pkttyagent, as far as nestctl knows it: closes the descriptor when it is ready, ends on SIGTERM.
trap 'echo ended >> "$AGENT_LOG"; exit 0' TERM
echo "$@" >> "$AGENT_LOG"
stty -echo
fd=${1#--notify-fd=}
eval "exec $fd>&-"
while :; do sleep 0.05; done
"""


def agent(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """The environment in which it is found, and where it writes what it does."""
    tool, log = tmp_path / "pkttyagent", tmp_path / "log"
    tool.write_text(AGENT)
    tool.chmod(0o755)
    log.touch()
    log.chmod(0o666)
    for folder in [tmp_path, *tmp_path.parents[:2]]:
        folder.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "AGENT_LOG": str(log)}, log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run nestctl as two users")
def test_polkit_can_ask_here(fake: Fake, tmp_path: Path) -> None:
    environment, log = agent(tmp_path)
    for argv in (["status"], ["kill", "demo", "--no-ask-password"]):
        with Terminal(fake, *argv, user=65534, environment=environment) as terminal:
            assert terminal.end() == 0, terminal.seen
    with Terminal(fake, "kill", "demo", environment=environment) as terminal:
        assert terminal.end() == 0
    assert log.read_text() == ""  # reading, not asking, and root
    with Terminal(fake, "kill", "demo", user=65534, environment=environment) as terminal:
        assert terminal.end() == 0, terminal.seen
        assert terminal.attributes() == terminal.before
    started, ended = log.read_text().splitlines()
    assert started.startswith("--notify-fd=") and started.endswith(" --fallback")
    assert ended == "ended"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run nestctl as two users")
def test_where_a_password_may_be_asked_for_only_the_steps_are_shown(fake: Fake, tmp_path: Path) -> None:
    """The first of them comes when the password was given."""
    environment, _ = agent(tmp_path)
    fake.fail({"Enable": None})
    with Terminal(fake, "enable", user=65534, environment=environment) as terminal:
        terminal.expect("0%: write a file (")
        terminal.process.send_signal(signal.SIGINT)
        terminal.end()
    assert "Turning nesting on" not in terminal.seen


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run nestctl as two users")
def test_no_pkttyagent(fake: Fake, empty: Path) -> None:
    empty.parent.chmod(0o755)
    with Terminal(fake, "kill", "demo", user=65534, environment={"PATH": str(empty)}) as terminal:
        assert terminal.end() == 0, terminal.seen
