# SPDX-License-Identifier: LGPL-2.1-or-later
"""systemd's manager on a private bus, for transient services: a program which really starts the processes.

It does what the daemon relies on, in the order in which systemd does it, and nothing of the sandbox (the
emulated machine proves that). `python -m tests.support.fakesystemd_program ADDRESS TOP`; what units write
to stderr goes to TOP/journal/INVOCATION, what systemd says of their ends to TOP/journal/INVOCATION.systemd; a
method is refused while there is a file TOP/refuse-METHOD, for the unit alone that the file names, if it names
one. While there is a file TOP/hangs, nothing is done, and later all of it in its order; whoever asks gets the
bus's own NoReply (reply_timeout of dbus-daemon(1)). While there is a file TOP/job-result, jobs that start a
unit end as it says, before the unit does anything.
tests/support/fakesystemd.py starts it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_UNITS = _PATH + "/unit/"
_PROPERTIES = "org.freedesktop.DBus.Properties"


class _Unit:
    def __init__(self, name: str, properties: dict[str, Any], fds: list[int], top: Path) -> None:
        self.name = name
        self._fds = fds
        self.properties = properties
        self.invocation = uuid.uuid4()
        self.active = "activating"
        self.result = "success"
        self.status = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.started = time.time_ns() // 1000
        self.ended = 0
        self._top = top
        self._runtime = [top / "run" / folder for folder in properties.get("RuntimeDirectory", ())]
        self.state = [top / "var/lib" / folder for folder in properties.get("StateDirectory", ())]
        self.oneshot = properties["Type"] == "oneshot"
        # Only that some path must not be there is understood, and only that it is.
        self.skipped = ["ConditionPathExists", False, True, "/"] in properties.get("Conditions", [])

    def start(self) -> None:
        uid, gid = int(self.properties.get("User", 0)), int(self.properties.get("Group", 0))
        for folder in self._runtime:
            folder.mkdir(parents=True)
            os.chown(folder, uid, gid)
            folder.chmod(self.properties["RuntimeDirectoryMode"])
        for folder in self.state:
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, uid, gid)
            folder.chmod(self.properties["StateDirectoryMode"])
        for mount, _ in self.properties.get("TemporaryFileSystem", ()):
            # One folder for all here, where systemd gives each unit its own.
            (self._top / mount[1:]).mkdir(parents=True, exist_ok=True)
            (self._top / mount[1:]).chmod(0o1777)
        environment = self._load_credentials(uid) | self._environment()
        [start] = self.properties["ExecStart"]
        with (self._top / "journal" / self.invocation.hex).open("wb") as errors:
            for program, argv, ignore_failure in (*self.properties.get("ExecStartPre", ()), start):
                assert not ignore_failure
                main = argv is start[1]
                command = [_expanded(value, environment) for value in argv]
                process = subprocess.Popen(
                    command, executable=program, user=uid, group=gid, extra_groups=[], stderr=errors,
                    stdout=None if main and not self.oneshot else errors, env=environment or None,
                    stdin=self._input(), start_new_session=True, cwd="/",
                    umask=self.properties.get("UMask", -1),
                )  # fmt: skip
                if main:
                    self.process = process
                elif process.wait():
                    self.end(process.returncode)
                    return
        self.active = "activating" if self.oneshot else "active"
        if self.name.startswith("nestd-guest-_"):
            self._namespace().mkdir(parents=True)
            (self._namespace() / "root").symlink_to(self._top)

    def _namespace(self) -> Path:
        """Where nestd looks for the unit's mounts. Other guests' are made by the tests that need them."""
        assert self.process is not None
        return self._top / f"proc/{self.process.pid}"

    def _environment(self) -> dict[str, str]:
        return dict(one.split("=", 1) for one in self.properties.get("Environment", ()))

    def _input(self) -> int:
        place = self.properties.get("StandardInputFileDescriptor")
        return subprocess.DEVNULL if place is None else self._fds[place]

    def _load_credentials(self, uid: int) -> dict[str, str]:
        """The environment that tells where they are."""
        loaded = self.properties.get("LoadCredential", ())
        if not loaded:
            return {}
        folder = self._top / "run/credentials" / self.name
        self._runtime.append(folder)
        folder.mkdir(parents=True)
        for name, source in loaded:
            shutil.copyfile(source, folder / name)
            (folder / name).chmod(0o400)
            os.chown(folder / name, uid, -1)
        return {"CREDENTIALS_DIRECTORY": str(folder)}

    def signal(self, number: int) -> None:
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def end(self, code: int) -> None:
        if self.process and self.name.startswith("nestd-guest-_"):
            shutil.rmtree(self._namespace())
            guest = self.name.removeprefix("nestd-guest-").removesuffix(".service")
            (self._top / f"run/nestd/console/{guest}").unlink(missing_ok=True)
        self.result = "success" if code == 0 else "exit-code" if code > 0 else "signal"
        self.status = abs(code)
        self.active = "inactive" if code == 0 else "failed"
        self.process = None
        self.ended = time.time_ns() // 1000
        self._tell_journal()
        for folder in self._runtime:
            shutil.rmtree(folder, ignore_errors=True)
        while self._fds:  # which systemd keeps for as long as the unit runs
            os.close(self._fds.pop())

    def _tell_journal(self) -> None:
        """As journalctl has what systemd says (unit_log_success, unit_log_process_exit, unit_log_failure)."""
        told = [{"MESSAGE_ID": "7ad2d189f7e94e70a38c781354912448"}]
        if self.result != "success":
            exit_status = {"EXIT_STATUS": str(self.status)}
            told = [{"MESSAGE_ID": "98e322203f7a4ed290d09fe03c09fe15", **exit_status}]
            told += [{"MESSAGE_ID": "d9b373ed55a64feb8242e02dbe79a49c", "UNIT_RESULT": self.result}]
        entries = [{"__REALTIME_TIMESTAMP": str(self.ended + 900), **one} for one in told]
        lines = "".join(f"{json.dumps(entry)}\n" for entry in entries)
        (self._top / "journal" / f"{self.invocation.hex}.systemd").write_text(lines)

    def unit(self) -> dict[str, Variant]:
        return {
            "Id": Variant("s", self.name),
            "ActiveState": Variant("s", self.active),
            "InvocationID": Variant("ay", self.invocation.bytes),
        }

    def service(self) -> dict[str, Variant]:
        pid = self.process.pid if self.process else 0
        [[program, argv, _]] = self.properties["ExecStart"]
        return {
            "MainPID": Variant("u", pid),
            "Result": Variant("s", self.result),
            "ExecMainStatus": Variant("i", self.status),
            "ExecMainStartTimestamp": Variant("t", self.started),
            "ExecMainExitTimestamp": Variant("t", self.ended),
            "User": Variant("s", self.properties.get("User", "")),
            "ExecStart": Variant("a(sasbttttuii)", [[program, argv, False, 0, 0, 0, 0, pid, 0, 0]]),
        }


def _expanded(word: str, environment: dict[str, str]) -> str:
    """As systemd has it, as far as nestd may use it: `$$` is a dollar, `${NAME}` what is set."""

    def put_in(match: re.Match[str]) -> str:
        return environment[match[1]] if match[1] else "$"

    whole = re.sub(r"\$\$|\$\{(\w+)\}", put_in, word)
    assert "$" not in re.sub(r"\$\$|\$\{\w+\}", "", word), word
    return whole


class _Manager:
    def __init__(self, bus: MessageBus, top: Path) -> None:
        self._bus = bus
        self._top = top
        self._units: dict[str, _Unit] = {}
        self._subscribers: set[str] = set()
        self._jobs = 0
        self._held: list[Message] = []

    def receive(self, message: Message) -> Message | None:
        asked = message.message_type is MessageType.METHOD_CALL and message.path.startswith(_PATH)
        if asked and (self._held or (self._top / "hangs").exists()):
            if not self._held:
                asyncio.get_running_loop().call_later(0.01, self._go_on)
            self._held.append(message)
            return Message.new_error(message, "org.freedesktop.DBus.Error.NoReply", "no answer in time")
        return self.handle(message)

    def _go_on(self) -> None:
        if (self._top / "hangs").exists():
            asyncio.get_running_loop().call_later(0.01, self._go_on)
            return
        held, self._held = self._held, []
        for message in held:  # their answers come too late for anybody
            self.handle(message)

    def handle(self, message: Message) -> Message | None:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        if message.path.startswith(_PATH) and self._refused(message):
            return Message.new_error(message, "org.freedesktop.DBus.Error.Failed", "no")
        if message.path.startswith(_UNITS):
            return self._get_all(message)
        method = getattr(self, f"_do_{message.member}", None)
        if message.path != _PATH or method is None:
            return None
        answer = method(message, *message.body)
        return answer if isinstance(answer, Message) else Message.new_method_return(message, *answer)

    def _refused(self, message: Message) -> bool:
        refuse = self._top / f"refuse-{message.member}"
        if not refuse.exists():
            return False
        unit = refuse.read_text()
        return not unit or message.path == _object(unit) or unit in message.body

    def stop(self) -> None:
        for unit in self._units.values():
            unit.signal(signal.SIGKILL)
            if unit.process:
                unit.process.wait()

    def _do_Subscribe(self, message: Message) -> Any:  # noqa: N802 - the names are systemd's
        if message.sender in self._subscribers:
            return Message.new_error(message, f"{_NAME}.AlreadySubscribed", "Client is already subscribed.")
        self._subscribers.add(message.sender)
        return ()

    def _do_StartTransientUnit(  # noqa: N802
        self, message: Message, name: str, mode: str, properties: list[Any], aux: list[Any]
    ) -> Any:
        assert (message.signature, mode, aux) == ("ssa(sv)a(sa(sv))", "fail", [])
        if name in self._units:
            return Message.new_error(message, f"{_NAME}.UnitExists", f"Unit {name} was already loaded.")
        # What is passed is closed here, as the unit has a copy, or was never made.
        fds = [os.dup(fd) for fd in message.unix_fds]
        for fd in message.unix_fds:
            os.close(fd)
        unit = _Unit(name, {key: value.value for key, value in properties}, fds, self._top)
        job = self._job(message, name)
        result = self._top / "job-result"
        if result.exists():
            body = [1, job, name, result.read_text()]
            asyncio.get_running_loop().call_soon(self._emit, "JobRemoved", "uoss", body)
            return "o", [job]
        self._units[name] = unit
        try:
            if unit.skipped:
                unit.active = "inactive"
            else:
                unit.start()
        except OSError:
            unit.end(203)
        asyncio.get_running_loop().call_soon(self._started, unit, job)
        return "o", [job]

    def _started(self, unit: _Unit, job: str) -> None:
        self._announce(unit)
        # The job of a oneshot service goes on to its end (systemd.service(5)).
        if unit.skipped:
            self._emit("JobRemoved", "uoss", [1, job, unit.name, "done"])
        elif not unit.process or not unit.oneshot:
            self._emit("JobRemoved", "uoss", [1, job, unit.name, "done" if unit.process else "failed"])
        if unit.process:
            pidfd = os.pidfd_open(unit.process.pid)
            asyncio.get_running_loop().add_reader(pidfd, self._reap, unit, pidfd, job)

    def _reap(self, unit: _Unit, pidfd: int, job: str) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        assert unit.process is not None
        unit.end(unit.process.wait())
        self._announce(unit)
        if unit.oneshot:
            result = "failed" if unit.active == "failed" else "done"
            self._emit("JobRemoved", "uoss", [1, job, unit.name, result])
        if unit.active == "inactive":
            del self._units[unit.name]

    def _do_StopUnit(self, message: Message, name: str, mode: str) -> Any:  # noqa: N802
        if error := self._signal(message, name, signal.SIGTERM):
            return error
        if self._units[name].process:
            self._units[name].active = "deactivating"
            self._announce(self._units[name])
        return "o", [self._job(message, name)]

    def _do_KillUnit(self, message: Message, name: str, whom: str, number: int) -> Any:  # noqa: N802
        assert whom == "all"
        return self._signal(message, name, number) or ()

    def _do_ResetFailedUnit(self, message: Message, name: str) -> Any:  # noqa: N802
        if name in self._units and self._units[name].active == "failed":
            del self._units[name]
        return ()

    def _do_CleanUnit(self, message: Message, name: str, what: list[str]) -> Any:  # noqa: N802
        unit = self._units.get(name)
        if unit is None or unit.process:
            return Message.new_error(message, f"{_NAME}.UnitBusy", "Unit is not inactive or failed.")
        assert what == ["state"]
        # As systemd has it: what is in the folder goes one after the other, and the unit is busy as long.
        unit.active = "maintenance"
        self._announce(unit)
        for folder in unit.state:
            shutil.rmtree(folder)
        unit.active = "inactive"
        asyncio.get_running_loop().call_later(0.02, self._announce, unit)
        return ()

    def _do_UnrefUnit(self, message: Message, name: str) -> Any:  # noqa: N802
        if name not in self._units:
            return Message.new_error(message, f"{_NAME}.NoSuchUnit", f"Unit {name} not loaded.")
        assert self._units.pop(name).properties["AddRef"]
        return ()

    def _do_ListUnitsByPatterns(self, message: Message, states: list[str], patterns: list[str]) -> Any:  # noqa: N802
        rows = [
            [unit.name, "", "loaded", unit.active, "", "", _object(unit.name), 0, "", "/"]
            for unit in self._units.values()
            if any(fnmatchcase(unit.name, pattern) for pattern in patterns)
        ]
        return "a(ssssssouso)", [rows]

    def _get_all(self, message: Message) -> Message:
        assert (message.member, message.interface) == ("GetAll", _PROPERTIES)
        escaped = message.path.removeprefix(_UNITS)
        name = re.sub(r"_([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), escaped)
        unit = self._units.get(name)
        if unit is None:
            known = {"ActiveState": Variant("s", "inactive"), "Result": Variant("s", "success")}
        else:
            known = unit.service() if message.body[0].endswith(".Service") else unit.unit()
        return Message.new_method_return(message, "a{sv}", [known])

    def _signal(self, message: Message, name: str, number: int) -> Message | None:
        if name not in self._units:
            return Message.new_error(message, f"{_NAME}.NoSuchUnit", f"Unit {name} not loaded.")
        self._units[name].signal(number)
        return None

    def _job(self, message: Message, name: str) -> str:
        self._jobs += 1
        return f"{_PATH}/job/{self._jobs}"

    def _announce(self, unit: _Unit) -> None:
        # "First for the specific type, then for the generic unit" (systemd, bus_unit_send_change_signal)
        for interface, known in ((f"{_NAME}.Service", unit.service()), (f"{_NAME}.Unit", unit.unit())):
            self._emit(
                "PropertiesChanged", "sa{sv}as", [interface, known, []], _object(unit.name), _PROPERTIES
            )

    def _emit(
        self,
        member: str,
        signature: str,
        body: list[Any],
        path: str = _PATH,
        interface: str = f"{_NAME}.Manager",
    ) -> None:
        if self._subscribers:
            self._bus.send(Message.new_signal(path, interface, member, signature, body))


def _object(unit: str) -> str:
    return _UNITS + re.sub(r"[^A-Za-z0-9]", lambda match: f"_{ord(match[0]):02x}", unit)


async def _main(address: str, top: str) -> None:
    bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
    manager = _Manager(bus, Path(top))
    bus.add_message_handler(manager.receive)
    await bus.request_name(_NAME)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await over.wait()
    manager.stop()
    bus.disconnect()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
