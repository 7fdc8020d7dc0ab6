# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bus service that claims to be nestd: one guest, `demo`, and canned answers.

    python -m tests.ctl.fake_nestd ADDRESS FOLDER

FOLDER/errors.json has the members that are to fail: {member: [error name, text]}; read at each call.
FOLDER/calls gets a line of JSON for each call: member, path, body, interactive (whether that is
allowed), and at first the word `ready`. The console greets, answers in capitals and closes when it
hears `bye`. A member that has null in errors.json never answers; one whose error has no name returns
the text, whatever it should return.

While there is FOLDER/moving, nesting goes off and the guest stops between the answers to GetStatus and
GetManagedObjects, whichever is asked for first. With FOLDER/odd-nodes a lab's nodes have another shape.

Enable, Disable and Revert have a job, which stands still in the middle where the member never answers; and
somebody else, who is not nestd, tells the caller of jobs, too.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from dbus_next import Message, MessageFlag, MessageType, Variant  # type: ignore[attr-defined]
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import RequestNameReply

DEMO = "/org/nestd1/guest/demo"
BOOTED = b"booted earlier\r\n"
GREETING = b"demo login: \x1b[1m"

STATUS = {
    "extension": Variant("s", "svm"),
    "driver": Variant("s", "kvm_amd"),
    "driver-state": Variant("s", "loaded"),
    "nested": Variant("s", "on"),
    "nested-at-boot": Variant("s", "on"),
    "policy": Variant("s", "on"),
    "reboot-required": Variant("b", False),
    "obstacle": Variant("s", ""),
    "obstacle-meaning": Variant("s", ""),
    "obstacle-remedy": Variant("s", ""),
    "virtualization": Variant("s", "kvm"),
    "version": Variant("s", "0.1.0"),
    "parameters": Variant("a{ss}", {"nested": "1", "npt": "Y"}),
    "kvm-api": Variant("i", 12),
    "guest-extension": Variant("b", True),
    "users": Variant("u", 2),
    "boot-source": Variant("s", "/etc/modprobe.d/zz-nestd.conf:3"),
    "overridden": Variant("as", ["/etc/modprobe.d/kvm.conf:7\x1b[2J"]),
}
GUEST = {
    "Name": Variant("s", "demo"),
    "State": Variant("s", "running"),
    "Owner": Variant("u", 0),
    "Unit": Variant("s", "nestd-guest-demo.service"),
    "Pid": Variant("u", 4711),
    "Cpu": Variant("s", "host"),
    "Nesting": Variant("b", True),
    "MissingFlags": Variant("as", ["x2avic"]),
    "Memory": Variant("t", 512 << 20),
    "Vcpus": Variant("u", 2),
    "Started": Variant("t", 1_700_000_000_000_000),
    "Console": Variant("s", "/run/nestd/guests/demo/console"),
    "ExitStatus": Variant("i", 0),
    "Vnc": Variant("s", ""),
    "Lab": Variant("s", ""),
    "Stopping": Variant("s", ""),
    "StopDeadline": Variant("t", 0),
    "Ended": Variant("t", 0),
    "Result": Variant("s", ""),
    "LastWords": Variant("as", []),
}
GONE = GUEST | {
    "Name": Variant("s", "gone"),
    "State": Variant("s", "failed"),
    "Pid": Variant("u", 0),
    "ExitStatus": Variant("i", 9),
    "Ended": Variant("t", 1_700_000_060_000_000),
    "Result": Variant("s", "signal"),
    "LastWords": Variant("as", ["qemu: I \x1b[31mbroke", "bye"]),
}
TOWN = "/org/nestd1/lab/town"
LAB = {
    "Name": Variant("s", "town"),
    "Owner": Variant("u", 0),
    "State": Variant("s", "partial"),
    "Subnet": Variant("s", "10.77.0.0/24"),
    "Nodes": Variant(
        "a(ssso)",
        [
            ["town-1", "10.77.0.1/24", "52:54:00:ab:cd:01", "/org/nestd1/guest/town_2d1"],
            ["town-2", "10.77.0.2/24", "52:54:00:ab:cd:02\x1b", "/"],
        ],
    ),
    "Created": Variant("t", 1_700_000_000_000_000),
}
CHANGED = {
    "changed": Variant("b", True),
    "nested": Variant("s", "off"),
    "nested-at-boot": Variant("s", "off"),
    "reboot-required": Variant("b", False),
    "steps": Variant("as", ["write /etc/modprobe.d/zz-nestd.conf", "unload kvm_amd", "load kvm_amd"]),
}
OBJECTS = {
    "/org/nestd1": {"org.nestd1.Manager": {}},
    DEMO: {"org.nestd1.Guest": GUEST},
    f"{DEMO}_gone": {"org.nestd1.Guest": GONE},
    TOWN: {"org.nestd1.Lab": LAB},
}
CHECKS = [
    ["extension", "pass", "The CPU has svm.", ""],
    ["parameter-vgif", "warn", "kvm_amd runs with vgif=0.", "Take it away\x1b[1m."],
    ["kvm-device", "fail", "/dev/kvm is missing.", "Make it again."],
]
HOLDERS = [
    [4711, "qemu-system-x86", "machine-qemu\\x2d1\\x2dweb.scope", "web"],
    [5, "vmm\x1b", "", ""],
]
VERIFIED = {
    "works": Variant("b", True),
    "level": Variant("s", ""),
    "why": Variant("s", ""),
    "extension": Variant("b", True),
    "flags": Variant("as", ["fpu", "svm", "npt"]),
    "missing": Variant("as", ["x2avic"]),
    "cpu": Variant("s", "EPYC,+svm"),
    "kvm-loaded": Variant("b", True),
    "vm-created": Variant("b", True),
    "ran": Variant("b", True),
    "exits": Variant(
        "a{s(dddu)}",
        {"kernel": [25_400.0, 24_000.0, 31_000.0, 40], "user": [43_210.0, 42_000.0, 50_000.0, 38]},
    ),
    "unmeasured": Variant("s", ""),
    "log": Variant("s", "kvm_amd: Nested Virtualization enabled"),
    "boot-seconds": Variant("d", 3.25),
    "seconds": Variant("d", 7.5),
}
MEASURED = {
    "exits": Variant(
        "a{s(dddu)}", {"kernel": [1270.0, 1200.0, 1310.0, 412], "user": [2880.0, 2800.0, 3010.0, 207]}
    ),
    "virtualization": Variant("s", "kvm"),
    "driver": Variant("s", "kvm_amd"),
    "cpu-model": Variant("s", "AMD EPYC\x1b[2J 7763"),
}
CPU = {
    "qemu": Variant("s", "EPYC,+svm"),
    "libvirt": Variant("s", "<cpu mode='custom'>\n  <model>EPYC</model>\n</cpu>\n"),
    "nesting": Variant("b", True),
    "missing": Variant("as", []),
    "unknown": Variant("as", []),
}
# A machine where nesting works and was not measured, or whose libvirt is old, while there is FOLDER/doubtful.
DOUBTFUL = {
    "Verify": VERIFIED
    | {
        "exits": Variant("a{s(dddu)}", {}),
        "unmeasured": Variant("s", "L2 ran, but QEMU\x1b ended before its exits were measured."),
    },
    "CheckCpu": CPU | {"unknown": Variant("as", ["EPYC-v3", "kvm-pv-eoi\x1b"])},
}
# A machine where nesting is off, which it is while there is FOLDER/without.
WITHOUT = {
    "Verify": VERIFIED
    | {
        "works": Variant("b", False),
        "level": Variant("s", "L1"),
        "why": Variant("s", "L1 has no svm: with -cpu host\x1b this machine's KVM does not give it."),
        "extension": Variant("b", False),
        "cpu": Variant("s", "host"),
        "kvm-loaded": Variant("b", False),
        "vm-created": Variant("b", False),
        "ran": Variant("b", False),
        "exits": Variant("a{s(dddu)}", {}),
        "log": Variant("s", "kvm: no hardware support\nkvm_amd: SVM not supported"),
    },
    "CheckCpu": CPU | {"nesting": Variant("b", False), "missing": Variant("as", ["svm", "npt"])},
}
# What is so when the second of these is answered, and what is told before.
MOVED: dict[str, tuple[str, list[Any]]] = {
    "GetStatus": ("a{sv}", [STATUS | {"nested": Variant("s", "off")}]),
    "GetManagedObjects": (
        "a{oa{sa{sv}}}",
        [OBJECTS | {DEMO: {"org.nestd1.Guest": GUEST | {"State": Variant("s", "stopping")}}}],
    ),
}
MOVING = [
    ("/org/nestd1", "org.nestd1.Manager", {"Nested": Variant("s", "off")}),
    (DEMO, "org.nestd1.Guest", {"State": Variant("s", "stopping")}),
]
JOB = "/org/nestd1/job/1"
LONG = "run dracut -f \x1b[2J" + "x" * 200
ANSWERS: dict[str, tuple[str, list[Any]]] = {
    "GetStatus": ("a{sv}", [STATUS]),
    "Diagnose": ("a(ssss)", [CHECKS]),
    "ListHolders": ("a(usss)", [HOLDERS]),
    "GetManagedObjects": ("a{oa{sa{sv}}}", [OBJECTS]),
    "GetAll": ("a{sv}", [GUEST]),
    "CancelPending": ("", []),
    "Get": ("v", [Variant("s", "svm")]),
    "Enable": ("a{sv}", [CHANGED]),
    "Disable": ("a{sv}", [CHANGED]),
    "Revert": ("a{sv}", [CHANGED]),
    "Launch": ("o", [DEMO]),
    "Verify": ("a{sv}", [VERIFIED]),
    "MeasureExit": ("a{sv}", [MEASURED]),
    "CheckCpu": ("a{sv}", [CPU]),
    "GetGuest": ("o", [DEMO]),
    "CreateLab": ("o", [TOWN]),
    "GetLab": ("o", [TOWN]),
    "Start": ("", []),
    "Remove": ("", []),
    "GetConsoleLog": ("ay", [BOOTED]),
    "Stop": ("", []),
    "Kill": ("", []),
}


async def speak(console: socket.socket) -> None:
    """The guest's side of the console."""
    loop = asyncio.get_running_loop()
    with console:
        console.setblocking(False)
        await loop.sock_sendall(console, GREETING)
        while heard := await loop.sock_recv(console, 4096):
            await loop.sock_sendall(console, heard.upper())
            if b"bye" in heard:
                return


def job(operation: str, *steps: str) -> list[Message]:
    """A job's coming, and its first steps, a quarter of the way each."""
    told = [
        {"Step": Variant("s", step), "Progress": Variant("d", number / 4)}
        for number, step in enumerate(steps)
    ]
    first = {"Operation": Variant("s", operation), "StartTime": Variant("t", 1), **told[0]}
    objects, properties = ("org.freedesktop.DBus." + name for name in ("ObjectManager", "Properties"))
    come = [JOB, {"org.nestd1.Job": first}]
    return [
        Message.new_signal("/org/nestd1", objects, "InterfacesAdded", "oa{sa{sv}}", come),
        *(
            Message.new_signal(JOB, properties, "PropertiesChanged", "sa{sv}as", ["org.nestd1.Job", step, []])
            for step in told[1:]
        ),
    ]


def stopping() -> list[Message]:
    """What is said of a guest whose power button was pressed, and then its unit stopped; and of another's."""
    told = [
        (DEMO, "power-button", time.time() + 20),
        (DEMO, "unit", time.time() + 90),
        (f"{DEMO}2", "power-button", time.time() + 500),
    ]
    return [
        Message.new_signal(
            path,
            "org.freedesktop.DBus.Properties",
            "PropertiesChanged",
            "sa{sv}as",
            [
                "org.nestd1.Guest",
                {"Stopping": Variant("s", what), "StopDeadline": Variant("t", int(until * 1e6))},
                [],
            ],
        )
        for path, what, until in told
    ]


def plain(value: Any) -> Any:
    """Arguments as JSON can have them."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, bytes)) else value


async def main(address: str, folder: Path) -> None:
    """Serve until the bus goes."""
    bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
    liar = await MessageBus(bus_address=address).connect()
    tasks: set[asyncio.Future[None]] = set()
    first: list[str | None] = []

    def handle(message: Message) -> Message | bool:
        if message.message_type is not MessageType.METHOD_CALL or message.destination == bus.unique_name:
            return False
        call = {
            "member": message.member,
            "path": message.path,
            "body": plain(message.body),
            "interactive": bool(message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION),
        }
        print(json.dumps(call), file=calls, flush=True)
        errors = json.loads((folder / "errors.json").read_text())
        if message.member in ("Enable", "Disable", "Revert"):
            for signal in job(message.member.lower(), "write a file", *[LONG] * (message.member == "Revert")):
                bus.send(signal)
            for signal in job("enable", "a lie", "a greater lie"):
                signal.destination = message.sender
                liar.send(signal)
        if message.member == "Stop" and None is errors.get("Stop", ""):
            for signal in stopping():
                bus.send(signal)
        if message.member in errors:
            if errors[message.member] is None:
                return True
            name, text = errors[message.member]
            if not name:
                return Message.new_method_return(message, "s", [text])
            return Message.new_error(message, name, text)
        if message.member == "GetGuest" and message.body != ["demo"]:
            return Message.new_error(message, "org.nestd1.Error.GuestNotFound", "no guest of that name")
        if message.member == "GetLab" and message.body != ["town"]:
            return Message.new_error(message, "org.nestd1.Error.LabNotFound", "no lab of that name")
        if message.member == "GetAll" and message.body == ["org.nestd1.Lab"]:
            odd = {"Nodes": Variant("as", ["town-1"])} if (folder / "odd-nodes").exists() else {}
            return Message.new_method_return(message, "a{sv}", [LAB | odd])
        if message.member == "OpenConsole":
            ours, theirs = socket.socketpair()
            task = asyncio.ensure_future(speak(ours))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            return Message.new_method_return(message, "h", [0], [theirs.detach()])
        signature, body = ANSWERS[message.member]
        if (folder / "moving").exists() and message.member in MOVED:
            if first and first[0] != message.member:
                signature, body = MOVED[message.member]
                for path, interface, changed in MOVING:
                    told = (path, "org.freedesktop.DBus.Properties", "PropertiesChanged", "sa{sv}as")
                    bus.send(Message.new_signal(*told, [interface, changed, []]))
            first.append(message.member)
        if (folder / "without").exists() and message.member in WITHOUT:
            body = [WITHOUT[message.member]]
        elif (folder / "doubtful").exists() and message.member in DOUBTFUL:
            body = [DOUBTFUL[message.member]]
        # A signal meant for nobody in particular, and one for the caller: both are to be ignored.
        for destination in (None, message.sender):
            noise = Message.new_signal("/org/nestd1", "org.nestd1.Manager", "ModuleEvent", "s", ["add"])
            noise.destination = destination  # type: ignore[assignment]
            bus.send(noise)
        return Message.new_method_return(message, signature, body)

    bus.add_message_handler(handle)
    if await bus.request_name("org.nestd1") is not RequestNameReply.PRIMARY_OWNER:
        raise SystemExit("org.nestd1 is taken")
    with (folder / "calls").open("a") as calls:
        print('"ready"', file=calls, flush=True)
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
