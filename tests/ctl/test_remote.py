# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestctl on another machine: through a fake ssh to the real systemd-stdio-bridge, and through that alone."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from nestd.ctl import arguments, elsewhere
from nestd.ctl.bridge import Bridge
from nestd.ctl.client import Client
from nestd.ctl.failures import Unreachable
from nestd.ctl.stream import Stream
from tests.ctl.running import LIMIT, NESTCTL, Fake, Terminal

# As ssh(1) has it: its options end with `--`, a word for the host, the rest is one line for a shell over
# there, whose input and output are pipes. It ends as that command does, or with 255.
SSH = """\
import json, os, subprocess, sys, threading
folder = os.path.dirname(os.path.abspath(__file__))
with open(folder + "/asked", "w") as asked:
    json.dump([os.getpid(), *sys.argv[1:]], asked)
manner = open(folder + "/manner").read()
if manner == "refused":
    print("ssh: connect to host far port 22: Connection refused", file=sys.stderr)
    sys.exit(255)
words = sys.argv[sys.argv.index("--") + 2:]
line = " ".join(words)
if manner == "silent":
    line = "cat >/dev/null"
if manner == "greeting":
    line = "echo Welcome to far; " + line
path = folder + "/there:/usr/bin:/bin" if manner != "bare" else folder + "/nothing"
there = subprocess.Popen(
    ["/bin/sh", "-c", line], env={"PATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
with open(folder + "/bridge", "w") as bridge:
    bridge.write(str(there.pid))
def copy(source, sink):
    try:
        while piece := os.read(source.fileno(), 65536):
            os.write(sink.fileno(), piece)
    except (ConnectionResetError, BrokenPipeError):
        pass  # who has left with something unread has left
    sink.close()
threading.Thread(target=copy, args=(sys.stdin.buffer, there.stdin), daemon=True).start()
copy(there.stdout, sys.stdout.buffer)
status = there.wait()
open(folder + "/ended", "w").close()
os._exit(status)
"""
# The bus of that machine is the test's.
BRIDGE = """\
#!/bin/sh
echo "$@" >{folder}/bridged
exec /usr/bin/systemd-stdio-bridge --bus-path={address}
"""


class Far:
    """A machine to be reached, and how ssh behaves."""

    def __init__(self, fake: Fake, folder: Path) -> None:
        self.fake = fake
        self.folder = folder
        (folder / "there").mkdir()
        bridge = folder / "there" / "systemd-stdio-bridge"
        bridge.write_text(BRIDGE.format(folder=folder, address=fake.bus.address))
        ssh = folder / "ssh"
        ssh.write_text(f"#!{sys.executable} -I\n{SSH}")
        for each in (bridge, ssh):
            each.chmod(0o755)
        self.behave("")
        # A way to a bus that is not asked for would fail.
        self.environment = fake.environment | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere",
        }

    def behave(self, manner: str) -> None:
        (self.folder / "manner").write_text(manner)

    def asked(self) -> tuple[int, list[str]]:
        """Which process ssh is, and its arguments."""
        deadline = time.monotonic() + LIMIT
        while not (self.folder / "asked").exists() or not (self.folder / "asked").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pid, *argv = json.loads((self.folder / "asked").read_text())
        return pid, argv

    def run(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*NESTCTL, *argv],
            check=False,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )


@pytest.fixture
def far(fake: Fake, tmp_path: Path) -> Far:
    return Far(fake, tmp_path)


def test_what_is_asked_of_another_machine_is_answered_there(far: Far) -> None:
    here = far.fake.run("status")
    there = far.run("-H", "root@far:2222/box", "status")
    assert (there.returncode, there.stdout, there.stderr) == (0, here.stdout, "")
    assert far.asked()[1] == [
        *("-xT", "-p", "2222", "--", "root@far", "systemd-stdio-bridge", "--machine=box")
    ]
    assert (far.folder / "bridged").read_text() == "--machine=box\n"
    assert (far.folder / "ended").exists(), "ssh was not waited for"


def test_owners_are_told_by_number_where_their_names_are_not_known(far: Far) -> None:
    assert "demo  running  0      host" in far.run("-H", "far", "list").stdout
    assert "0 (uid 0)" in far.run("-H", "far", "show", "demo").stdout


def test_a_change_may_be_authorized_there_and_its_error_says_where(far: Far) -> None:
    far.fake.fail({"Enable": ("org.freedesktop.DBus.Error.AccessDenied", "no")})
    done = far.run("enable", "--host=far")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "nestctl: far: no [AccessDenied]\n")
    assert [call["interactive"] for call in far.fake.calls()] == [True]


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        (
            "refused",
            [
                "ssh: connect to host far port 22: Connection refused",
                "ssh does not reach far",
                "ssh -t far true",
            ],
        ),
        ("bare", ["far has no systemd-stdio-bridge", "ssh -t far nestctl"]),
        ("greeting", ["Welcome to far"]),
    ],
)
def test_ways_that_lead_nowhere(far: Far, manner: str, words: Sequence[str]) -> None:
    far.behave(manner)
    done = far.run("-Hfar")
    assert (done.returncode, done.stdout) == (1, "")
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr


def test_a_change_there_is_followed_on_this_terminal(far: Far) -> None:
    far.fake.fail({"Revert": None})
    with Terminal(far.fake, "-H", "far", "revert", environment=far.environment) as terminal:
        terminal.expect("25%: run dracut -f")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == -signal.SIGINT
    assert not Path(f"/proc/{far.asked()[0]}").exists()


def test_no_ssh(far: Far, empty: Path) -> None:
    done = far.run("-H", "far", PATH=str(empty))
    assert done.returncode == 1
    assert "cannot run ssh: No such file or directory" in done.stderr


def test_who_starts_it_may_not_want_to_know_of_children(far: Far) -> None:
    done = subprocess.run(
        ["env", "--ignore-signal=CHLD", *NESTCTL, "-H", "far", "list"],
        check=False,
        env=far.environment,
        capture_output=True,
        timeout=LIMIT,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_answer_that_does_not_come_from_there_is_looked_for_there(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.fake.fail({"Kill": None})
    monkeypatch.setenv("PATH", far.environment["PATH"])
    bridge = Bridge(elsewhere.host("far"), far.environment)
    with (
        Client(bridge, far.environment, interactive=False) as client,
        pytest.raises(Unreachable, match="the system bus of far: no answer came in time"),
    ):
        client.call("/org/nestd1/guest/demo", "org.nestd1.Guest", "Kill", limit=0.5)


def test_a_machine_that_says_nothing_is_given_up(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    far.behave("silent")
    monkeypatch.setenv("PATH", far.environment["PATH"])
    bridge = Bridge(elsewhere.host("far"), far.environment)
    with pytest.raises(Unreachable, match="the system bus of far says nothing"):
        Stream(bridge, far.environment, time.monotonic() + 0.5)
    assert not Path(f"/proc/{far.asked()[0]}").exists()


@pytest.mark.parametrize("command", [("kill", "demo"), ("watch",)])
def test_ssh_is_killed_in_the_middle(far: Far, command: Sequence[str]) -> None:
    far.fake.fail({"Kill": None})
    process = subprocess.Popen(
        [*NESTCTL, "-H", "far", *command], env=far.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        awaited = "Kill" if command[0] == "kill" else "GetManagedObjects"
        while not any(call["member"] == awaited for call in far.fake.calls()):
            assert process.poll() is None
            time.sleep(0.01)
        if command[0] == "watch":
            assert process.stdout is not None and b"nesting is on" in process.stdout.readline()
        os.kill(far.asked()[0], signal.SIGKILL)
        complaint = process.communicate(timeout=LIMIT)[1].decode()
    with suppress(ChildProcessError):  # an orphan is ours to reap if this process adopts them
        os.waitpid(int((far.folder / "bridge").read_text()), 0)
    assert process.returncode == 1
    assert complaint == "nestctl: ssh to far was ended by signal 9.\n    Try again.\n"


def test_who_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexec sleep 1000\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    bridge = Bridge(elsewhere.host("far"), os.environ)
    bridge.socket.close()
    bridge.close()
    assert bridge.why() == "ssh to far was ended by signal 15. Try again."


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("far", ["--", "far"]),
        ("me@far", ["--", "me@far"]),
        ("far:22", ["-p", "22", "--", "far"]),
        ("far/.host", ["--", "far"]),
        ("[::1]", ["--", "::1"]),
        ("me@[fe80::1%eth0]:22/box", ["-p", "22", "--", "me@fe80::1%eth0"]),
        ("bücher.example", ["--", "bücher.example"]),
    ],
)
def test_hosts(text: str, argv: list[str]) -> None:
    host = elsewhere.host(text)
    machine = text.partition("/")[2]
    assert host.argv == (
        "ssh",
        "-xT",
        *argv,
        "systemd-stdio-bridge",
        *([f"--machine={machine}"] if machine else []),
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "-oProxyCommand=touch hurt", "me@-oProxyCommand=touch", "-l@far", "@far", "me@", "a@b@c"),
        *(
            "far;touch hurt",
            "$(touch hurt)",
            "far`x`",
            "far\nfar",
            "far far",
            "far|x",
            "fa'r",
            "far\\",
            "far\x1b",
        ),
        *(
            "far:",
            "far:x",
            "far:-1",
            "far:999999",
            "far/",
            "far/-x",
            "far/../x",
            "::1",
            "[::1",
            "[-o]",
            "ssh://far",
        ),
        *("me;x@far", "$(x)@far", "-@far", "far:22/b c", "[::1%$(x)]", "far\x00", "far#\u202e\n"),
    ],
)
def test_what_is_no_host_never_reaches_ssh(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        elsewhere.host(text)


def test_a_hostile_name_starts_nothing(far: Far) -> None:
    done = far.run("--host=-oProxyCommand=touch hurt", "status")
    assert done.returncode == 2 and "is no host" in done.stderr
    assert not (far.folder / "asked").exists()


@pytest.mark.parametrize("text", ["box", "me@box", "me@", "@box", ".host", "me@.host"])
def test_machines(text: str) -> None:
    assert elsewhere.machine(text).argv == ("systemd-stdio-bridge", f"--machine={text}")


@pytest.mark.parametrize(
    "text", ["", "@", "-x", "me@-x", "a@b@c", "box/x", "b x", "-x@box", "box\n", "\u202e"]
)
def test_what_is_no_machine(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        elsewhere.machine(text)


def test_a_local_machine_and_its_console(far: Far) -> None:
    """The bridge alone carries descriptors, too."""
    path = f"{far.folder}/there:{os.environ['PATH']}"
    done = far.run("-M", "box", "status", PATH=path)
    assert (done.returncode, done.stdout) == (0, far.fake.run("status").stdout)
    assert (far.folder / "bridged").read_text() == "--machine=box\n"
    process = subprocess.run(
        [*NESTCTL, "--machine=box", "console", "demo"],
        check=False,
        env=far.environment | {"PATH": path},
        input=b"bye\n",
        capture_output=True,
        timeout=LIMIT,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout.endswith(b"BYE\n")


def test_no_descriptor_gets_through_ssh(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody waits for one: the bridge there has only pipes."""
    monkeypatch.setenv("PATH", far.environment["PATH"])
    stream = Stream(Bridge(elsewhere.host("far"), far.environment), far.environment, time.monotonic() + LIMIT)
    stream.close()
    assert stream.descriptors is False


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-H me@far:22 console demo", "type ssh -t -p 22 me@far 'nestctl console demo'"),
        (
            "-H far launch demo --console",
            "launch it without --console, then type ssh -t far 'nestctl console demo'",
        ),
        ("-H far/box console demo", "type ssh -t far 'nestctl -M box console demo'"),
        ("-H far launch demo --kernel bzImage", "bzImage: what it is relative to is not on that machine"),
        (
            "-M box launch demo --disk path=x.img,format=raw",
            "x.img: what it is relative to is not on that machine",
        ),
        ("-H far -M box", "exclude each other"),
        ("-H far status --bus=session", "exclude each other"),
        ("-H= status", "is no host"),
    ],
)
def test_what_does_not_go_elsewhere(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments.parse(line.split())
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_paths_from_the_root_are_the_other_machines() -> None:
    line = "-H far launch demo --kernel /boot/x --disk path=/y,format=raw"
    given = arguments.parse(line.split())
    assert (given.kernel, given.disks[0]["path"]) == ("/boot/x", "/y")
