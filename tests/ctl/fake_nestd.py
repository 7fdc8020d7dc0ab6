# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bus service that claims to be nestd: one guest, `demo`, and canned answers.

    python fake_nestd.py ADDRESS [MEMBER=ERROR:TEXT]...

A member that is given an error answers with it. Standard output tells `ready`, and then each call as
a line of JSON: member, path, arguments, and whether interactive authorization is allowed. The
console greets, answers in capitals and closes when it hears `bye`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

from dbus_next import Message, MessageFlag, MessageType, Variant  # type: ignore[attr-defined]
from dbus_next.aio import MessageBus
from dbus_next.constants import RequestNameReply

DEMO = "/org/nestd1/guest/demo"
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
}
ANSWERS: dict[str, tuple[str, list[Any]]] = {
    "GetStatus": ("a{sv}", [STATUS]),
    "GetManagedObjects": ("a{oa{sa{sv}}}", [OBJECTS]),
    "GetAll": ("a{sv}", [GUEST]),
    "Get": ("v", [Variant("s", "svm")]),
    "Enable": ("a{sv}", [CHANGED]),
    "Disable": ("a{sv}", [CHANGED]),
    "Launch": ("o", [DEMO]),
    "GetGuest": ("o", [DEMO]),
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


def plain(value: Any) -> Any:
    """Arguments as JSON can have them."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


async def main(address: str, errors: dict[str, str]) -> None:
    """Serve until the bus goes."""
    bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
    tasks = set()

    def handle(message: Message) -> Message | bool:
        if message.message_type is not MessageType.METHOD_CALL or message.destination == bus.unique_name:
            return False
        interactive = bool(message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION)
        print(
            json.dumps(
                {
                    "member": message.member,
                    "path": message.path,
                    "body": plain(message.body),
                    "interactive": interactive,
                }
            ),
            flush=True,
        )
        if message.member in errors:
            name, _, text = errors[message.member].partition(":")
            return Message.new_error(message, name, text)
        if message.member == "GetGuest" and message.body != ["demo"]:
            return Message.new_error(message, "org.nestd1.Error.GuestNotFound", "there is no guest of that name")
        if message.member == "OpenConsole":
            ours, theirs = socket.socketpair()
            task = asyncio.ensure_future(speak(ours))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            return Message.new_method_return(message, "h", [0], [theirs.detach()])
        signature, body = ANSWERS[message.member]
        # A signal meant for nobody in particular, and one for the caller: both are to be ignored.
        for destination in (None, message.sender):
            noise = Message.new_signal("/org/nestd1", "org.nestd1.Manager", "ModuleEvent", "ss", ["add", "kvm"])
            noise.destination = destination
            bus.send(noise)
        return Message.new_method_return(message, signature, body)

    bus.add_message_handler(handle)
    if await bus.request_name("org.nestd1") is not RequestNameReply.PRIMARY_OWNER:
        raise SystemExit("org.nestd1 is taken")
    print("ready", flush=True)
    await bus.wait_for_disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], dict(given.split("=", 1) for given in sys.argv[2:])))
