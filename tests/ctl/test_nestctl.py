# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestctl as a whole process, on pipes: what it asks, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from nestd import __version__
from nestd.ctl.client import NO_LIMIT, Client
from tests.ctl.running import LIMIT, NESTCTL, Fake

STATUS = """\
         Nesting: on (running)
    At next boot: on — decided by /etc/modprobe.d/zz-nestd.conf:3
      Overridden: /etc/modprobe.d/kvm.conf:7\\x1b[2J
          Policy: on
   CPU extension: svm
          Driver: kvm_amd (module, loaded, 2 users)
             KVM: API 12, guests are offered svm
    This machine: runs in kvm
"""


@pytest.mark.parametrize("argv", [[], ["status"]])
def test_status(fake: Fake, argv: list[str]) -> None:
    done = fake.run(*argv)
    assert (done.returncode, done.stdout, done.stderr) == (0, STATUS, "")
    assert [call["member"] for call in fake.calls()] == ["GetStatus"]


def test_status_as_json(fake: Fake) -> None:
    done = fake.run("--json")
    values = json.loads(done.stdout)
    assert set(values) == {
        *("extension", "driver", "driver-state", "nested", "nested-at-boot", "policy", "reboot-required"),
        *(
            "obstacle",
            "obstacle-meaning",
            "obstacle-remedy",
            "virtualization",
            "version",
            "parameters",
            "kvm-api",
            "guest-extension",
            "users",
        ),
        *("boot-source", "overridden"),
    }
    assert values["parameters"] == {"nested": "1", "npt": "Y"}
    assert values["overridden"] == ["/etc/modprobe.d/kvm.conf:7\x1b[2J"]
    assert "\x1b" not in done.stdout


DIAGNOSIS = """\
ok   The CPU has svm. [extension]
warn kvm_amd runs with vgif=0. [parameter-vgif]
     To do: Take it away\\x1b[1m.
FAIL /dev/kvm is missing. [kvm-device]
     To do: Make it again.
1 pass, 1 warn, 1 fail
"""
HOLDERS = """\
PID   COMMAND          MACHINE  UNIT
4711  qemu-system-x86  web      machine-qemu\\x2d1\\x2dweb.scope
5     vmm\\x1b          -        -
"""


def test_diagnose_ends_as_its_checks_do(fake: Fake) -> None:
    done = fake.run("diagnose")
    assert (done.returncode, done.stdout, done.stderr) == (1, DIAGNOSIS, "")


def test_diagnose_as_json(fake: Fake) -> None:
    done = fake.run("diagnose", "--json")
    rows = json.loads(done.stdout)
    assert done.returncode == 1
    assert rows[1] == {
        "id": "parameter-vgif",
        "verdict": "warn",
        "message": "kvm_amd runs with vgif=0.",
        "remedy": "Take it away\x1b[1m.",
    }


def test_holders(fake: Fake) -> None:
    done = fake.run("holders")
    assert (done.returncode, done.stdout, done.stderr) == (0, HOLDERS, "")
    rows = json.loads(fake.run("holders", "--json").stdout)
    assert [(row["pid"], row["command"], row["machine"]) for row in rows] == [
        (4711, "qemu-system-x86", "web"),
        (5, "vmm\x1b", ""),
    ]


@pytest.mark.parametrize(("command", "member"), [("enable", "Enable"), ("disable", "Disable")])
def test_changes(fake: Fake, command: str, member: str) -> None:
    done = fake.run(command, "--boot", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.startswith("It would take these steps:\n  1. write /etc/modprobe.d/zz-nestd.conf\n")
    (call,) = fake.calls()
    assert (call["member"], call["body"]) == (member, [{"scope": "boot", "dry-run": True}])
    assert call["interactive"] is True


def test_a_change_that_waits(fake: Fake) -> None:
    assert fake.run("disable", "--when-idle").returncode == 0
    assert fake.run("cancel").stdout == "No change waits.\n"
    asked, cancelled = fake.calls()
    assert asked["body"] == [{"scope": "both", "dry-run": False, "when-idle": True}]
    assert (cancelled["member"], cancelled["interactive"]) == ("CancelPending", True)


def test_what_writes_the_command_line(fake: Fake) -> None:
    assert fake.run("disable", "--boot", "--replace", "--loader=grub").returncode == 0
    (call,) = fake.calls()
    assert call["body"] == [{"scope": "boot", "dry-run": False, "replace": True, "loader": "grub"}]


def test_revert(fake: Fake) -> None:
    done = fake.run("revert")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("Nesting is off now; at the next boot: off.\n")
    assert fake.run("revert", "--dry-run").stdout.startswith("It would take these steps:\n")
    assert json.loads(fake.run("revert", "--json").stdout)["changed"] is True
    calls = [(call["member"], call["path"], call["body"], call["interactive"]) for call in fake.calls()]
    wanted = [{"dry-run": False}], [{"dry-run": True}], [{"dry-run": False}]
    assert calls == [("Revert", "/org/nestd1", body, True) for body in wanted]


def test_change_as_json(fake: Fake) -> None:
    values = json.loads(fake.run("disable", "--json").stdout)
    assert set(values) == {"changed", "nested", "nested-at-boot", "reboot-required", "steps"}


def test_a_call_without_a_limit_of_time(fake: Fake) -> None:
    to: tuple[Any, ...] = ("/org/nestd1", "org.nestd1.Manager", "Revert", "a{sv}", {})
    with Client(fake.bus.address, fake.environment, interactive=False) as client:
        for waiting in (None, lambda: None):
            [result] = client.call(*to, returns="a{sv}", limit=NO_LIMIT, waiting=waiting)
            assert result["changed"] is True


def test_nobody_is_asked_for_a_password(fake: Fake) -> None:
    assert fake.run("--no-ask-password", "enable").returncode == 0
    assert [call["interactive"] for call in fake.calls()] == [False]


def test_list(fake: Fake) -> None:
    assert fake.run("list").stdout == (
        "NAME  STATE    OWNER  CPU   NESTING  MEMORY  PID\n"
        "demo  running  root   host  yes      512M    4711\n"
    )
    (guest,) = json.loads(fake.run("list", "--json").stdout)
    assert guest == json.loads(fake.run("show", "demo", "--json").stdout)
    assert set(guest) == {
        *("name", "state", "owner", "unit", "pid", "cpu", "nesting", "missing-flags", "memory", "vcpus"),
        *("started", "console", "exit-status", "vnc", "lab", "stopping", "stop-deadline", "ended", "result"),
        "last-words",
    }


def test_list_of_those_that_have_ended_too(fake: Fake) -> None:
    assert fake.run("list", "--all").stdout == (
        "NAME  STATE    OWNER  CPU   NESTING  MEMORY  PID\n"
        "demo  running  root   host  yes      512M    4711\n"
        "gone  failed   root   host  yes      512M    -\n"
    )
    assert [guest["name"] for guest in json.loads(fake.run("list", "--all", "--json").stdout)] == [
        "demo",
        "gone",
    ]


def test_show(fake: Fake) -> None:
    out = fake.run("show", "demo").stdout
    assert "           Owner: root (uid 0)\n" in out
    assert "         Started: 2023-11-14 22:13:20 UTC\n" in out
    assert "         Nesting: granted: its virtual CPU has svm, so it can run guests of its own\n" in out


def test_launch(fake: Fake) -> None:
    line = (
        "launch demo --kernel vmlinuz --append quiet --memory 1G "
        "--disk path=d.img,format=raw,readonly --cpu-feature +avx2 --allow-no-nesting"
    )
    done = subprocess.run(
        [*NESTCTL, *line.split()],
        check=False,
        env=fake.environment,
        cwd="/usr",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "demo runs as nestd-guest-demo.service (uid 0), CPU host, svm: granted; "
        "1 CPU flag did not reach it (`nestctl show demo`)\n"
    )
    assert fake.calls()[0]["body"] == [
        "demo",
        {
            "kernel": "/usr/vmlinuz",
            "append": "quiet",
            "memory": 1 << 30,
            "disks": [{"path": "/usr/d.img", "format": "raw", "readonly": True}],
            "cpu-features": ["+avx2"],
            "require-nesting": False,
        },
    ]


def test_a_launch_with_devices(fake: Fake) -> None:
    line = (
        "launch demo --cdrom /c.iso --firmware uefi --forward 2222-22 --vnc --user-data - --extra-arg=-rtc "
        "--extra-arg base=utc"
    )
    done = fake.run(*line.split(), stdin="#cloud-config\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert fake.calls()[0]["body"] == [
        "demo",
        {
            "cdrom": "/c.iso",
            "firmware": "uefi",
            "network": {"kind": "user", "forwards": ["tcp:2222-22"]},
            "display": "vnc",
            "user-data": list(b"#cloud-config\n"),
            "extra-args": ["-rtc", "base=utc"],
        },
    ]


def test_a_launch_into_a_lab(fake: Fake) -> None:
    assert fake.run("launch", "demo", "--network", "lab=two").returncode == 0
    assert fake.calls()[0]["body"] == ["demo", {"network": {"kind": "lab", "lab": "two"}}]


def test_a_plain_launch_leaves_the_defaults_to_nestd(fake: Fake) -> None:
    assert json.loads(fake.run("launch", "demo", "--json").stdout)["name"] == "demo"
    assert fake.calls()[0]["body"] == ["demo", {}]


def test_stop_and_kill(fake: Fake) -> None:
    for argv in (["stop", "demo", "--timeout=5"], ["stop", "demo"], ["kill", "demo"]):
        done = fake.run(*argv)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    calls = [(call["member"], call["body"]) for call in fake.calls() if call["member"] != "GetGuest"]
    assert calls == [("Stop", [{"timeout": 5}]), ("Stop", [{}]), ("Kill", [])]
    assert {call["path"] for call in fake.calls()} == {"/org/nestd1", "/org/nestd1/guest/demo"}


def test_console_on_pipes(fake: Fake) -> None:
    done = fake.run("console", "demo", stdin="hello\x1d bye")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "booted earlier\ndemo login: \x1b[1mHELLO\x1d BYE"


def test_launch_and_attach(fake: Fake) -> None:
    done = fake.run("launch", "demo", "--console", stdin="bye")
    assert done.returncode == 0
    assert done.stdout.endswith("(`nestctl show demo`)\nbooted earlier\ndemo login: \x1b[1mBYE")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("org.nestd1.Error.ReloadFailed", 1),
        ("org.nestd1.Error.GuestNotFound", 1),
        ("org.freedesktop.DBus.Error.InvalidArgs", 2),
        ("org.freedesktop.DBus.Error.AccessDenied", 3),
        ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", 3),
        ("org.nestd1.Error.NotSupported", 4),
        ("org.nestd1.Error.BootloaderUnknown", 4),
        ("org.nestd1.Error.BootloaderFailed", 1),
        ("org.nestd1.Error.Overridden", 1),
        ("org.nestd1.Error.InUse", 5),
        ("org.nestd1.Error.Busy", 5),
    ],
)
def test_exit_codes(fake: Fake, name: str, code: int) -> None:
    fake.fail({"Enable": (name, "no: because\nof \x1b[5mthis")})
    done = fake.run("enable")
    assert (done.returncode, done.stdout) == (code, "")
    short = name.rpartition(".")[2]
    assert done.stderr == f"nestctl: no: because\n    of \\x1b[5mthis [{short}]\n"


def test_an_error_without_words(fake: Fake) -> None:
    fake.fail({"Enable": ("org.nestd1.Error.Odd", "")})
    assert "nestctl: nestd answered org.nestd1.Error.Odd and said no more" in fake.run("enable").stderr


@pytest.mark.parametrize("command", ["show", "stop", "kill", "console"])
def test_unknown_guest(fake: Fake, command: str) -> None:
    done = fake.run(command, "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "nestctl: no guest of that name [GuestNotFound]\n"


def test_usage_and_version() -> None:
    for argv, code, channel, text in (
        (["frobnicate"], 2, "stderr", "usage: nestctl"),
        (["--version"], 0, "stdout", f"nestctl {__version__}\n"),
    ):
        done = subprocess.run([*NESTCTL, *argv], check=False, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == code
        assert text in getattr(done, channel)


def test_no_bus(tmp_path: Path) -> None:
    environment = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/none"}
    done = subprocess.run(
        NESTCTL, check=False, env=environment, capture_output=True, text=True, timeout=LIMIT
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"nestctl: cannot reach the system bus at {tmp_path}/none: No such file or directory.\n"
        "    Is dbus running?\n"
    )


@pytest.mark.parametrize("address", ["tcp:host=localhost,port=1", "rubbish", "unix:", ""])
def test_bad_addresses(fake: Fake, address: str) -> None:
    done = fake.run(f"--bus={address}")
    assert done.returncode == 1
    assert done.stderr.startswith("nestctl: cannot reach the bus: ")


def test_an_address_instead_of_a_name(fake: Fake) -> None:
    done = fake.run(f"--bus={fake.bus.address}", DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nowhere")
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["ServiceUnknown", "Spawn.ChildExited", "NameHasNoOwner"])
def test_nestd_is_not_there(fake: Fake, name: str) -> None:
    fake.fail({"GetStatus": (f"org.freedesktop.DBus.Error.{name}", "words of the bus")})
    done = fake.run()
    assert done.returncode == 1
    assert done.stderr.startswith(
        "nestctl: nestd is not running and cannot be activated: systemctl status nestd (words of the bus)"
    )


def test_nobody_owns_the_name() -> None:
    """The same with a real bus that has no nestd."""
    from tests.support.privatebus import PrivateBus

    with PrivateBus() as bus:
        done = subprocess.run(
            NESTCTL, check=False, env=bus.environment, capture_output=True, text=True, timeout=LIMIT
        )
    assert done.returncode == 1
    assert "nestd is not running and cannot be activated" in done.stderr


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "the bus closed the connection"),
        (b"REJECTED EXTERNAL\r\n", "the bus refuses the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the bus refuses the connection"),
        (b"OK 0123\r\nAGREE_UNIX_FD\r\nrubbish that is no message", "the bus brought what is no message"),
    ],
)
def test_a_bus_that_is_none(tmp_path: Path, said: bytes, words: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bus"))
        listener.listen(1)

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        done = subprocess.run(
            [*NESTCTL, f"--bus=unix:path={tmp_path}/bus"],
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        thread.join(LIMIT)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr and "Traceback" not in done.stderr


def test_nobody_reads_on(fake: Fake) -> None:
    """As with `nestctl | true`: it dies of SIGPIPE, silently."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        for argv in (["status"], ["--help"]):
            done = subprocess.run(
                [*NESTCTL, *argv],
                check=False,
                env=fake.environment,
                stdout=writing,
                stderr=subprocess.PIPE,
                timeout=LIMIT,
            )
            assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")
    finally:
        os.close(writing)


@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-"])
def test_output_that_cannot_be_written(fake: Fake, redirection: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *NESTCTL],
        check=False,
        env=fake.environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("nestctl: cannot write the output: ")
    assert done.stderr.count("\n") == 1


def test_output_that_is_full_for_a_while(fake: Fake) -> None:
    """ssh makes its standard error one that does not wait, which is ours, and may be the output, too."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = os.write(writing, b"x" * (1 << 20))
    with (
        subprocess.Popen(NESTCTL, env=fake.environment, stdout=writing, stderr=subprocess.PIPE) as process,
        os.fdopen(reading, "rb") as output,
    ):
        os.close(writing)
        while not any(call["member"] == "GetStatus" for call in fake.calls()):
            assert process.poll() is None
            time.sleep(0.01)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert b"Nesting: on" in output.read()[filled:]
        assert process.communicate(timeout=LIMIT)[1] == b""
    assert process.returncode == 0


def test_help_that_cannot_be_written() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" > /dev/full', "sh", *NESTCTL, "--help"],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 1
    assert done.stderr == "nestctl: standard input or output: No space left on device\n"


def test_console_without_an_output(fake: Fake) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *NESTCTL, "console", "demo"],
        check=False,
        env=fake.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 1
    assert "nowhere to show the console" in done.stderr


@pytest.mark.parametrize(
    ("argv", "member"),
    [
        ("status", "GetStatus"),
        ("list", "GetManagedObjects"),
        ("show demo", "GetAll"),
        ("stop demo", "GetGuest"),
        ("enable", "Enable"),
        ("revert", "Revert"),
        ("launch demo", "Launch"),
        ("console demo", "OpenConsole"),
    ],
)
def test_a_nestd_that_answers_otherwise(fake: Fake, argv: str, member: str) -> None:
    """Another signature than the interface has is an error in words, not a traceback."""
    fake.fail({member: ("", "words instead of values")})
    done = fake.run(*argv.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("nestctl: nestd ") and done.stderr.count("\n") == 1


def test_closed_descriptors_are_no_harm_where_nothing_is_printed(fake: Fake) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *NESTCTL, "stop", "demo"],
        check=False,
        env=fake.environment,
        timeout=LIMIT,
    )
    assert done.returncode == 0


def test_interrupted(fake: Fake) -> None:
    """A shell sees 130, and that the signal did it."""
    fake.fail({"Kill": None})
    process = subprocess.Popen([*NESTCTL, "kill", "demo"], env=fake.environment, stderr=subprocess.PIPE)
    while not any(call["member"] == "Kill" for call in fake.calls()):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=LIMIT)[1] == b""
    assert process.returncode == -signal.SIGINT


def test_it_loads_little() -> None:
    """Starting is most of what a call costs: nothing heavy is imported before it is needed."""
    code = "import sys, nestd.ctl.__main__, nestd.ctl.commands; print(*sys.modules)"
    done = subprocess.run([NESTCTL[0], "-c", code], check=True, capture_output=True, text=True, timeout=LIMIT)
    heavy = {
        "argparse",
        "pwd",
        "asyncio",
        "dataclasses",
        "inspect",
        "logging",
        "json",
        "pathlib",
        "subprocess",
        "urllib",
        "ssl",
    }
    assert heavy.isdisjoint(done.stdout.split())
