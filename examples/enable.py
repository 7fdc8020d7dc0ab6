#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Turn nesting on, now and for the next boots, and show each step while it runs. With dbus-next.

    examples/enable.py

An initramfs that is made anew takes minutes: this waits as long as it takes, and tells where it is.
"""

import asyncio
import sys

from dbus_next import BusType, Message, MessageFlag, MessageType
from dbus_next.aio import MessageBus

NESTD, PATH, MANAGER, JOB = "org.nestd1", "/org/nestd1", "org.nestd1.Manager", "org.nestd1.Job"
DBUS, ERROR = "org.freedesktop.DBus", "org.nestd1.Error."
TO_DO = {
    ERROR + "InUse": "Shut the guests down that are named, or use the option when-idle: then it waits.",
    ERROR + "NotSupported": "Nesting cannot be had on this machine before that is mended.",
    ERROR + "Overridden": "Take that away, or let nestd do it with the option replace.",
    ERROR + "Busy": "Try again when that is over.",
    ERROR + "BootloaderUnknown": "Put that argument there yourself, or name who writes it with loader.",
    DBUS + ".Error.AccessDenied": "Ask an administrator.",
    DBUS + ".Error.InteractiveAuthorizationRequired": "Run it in a session with a polkit agent, or as root.",
    DBUS + ".Error.ServiceUnknown": "Install nestd, or look at: systemctl status nestd",
}


async def ask_bus(bus: MessageBus, member: str, text: str) -> Message:
    """A call of the bus itself, with one string."""
    return await bus.call(Message(DBUS, "/org/freedesktop/DBus", DBUS, member, signature="s", body=[text]))


def show(message: Message, owner: str) -> None:
    """Print what a signal tells of the job of the change."""
    # Anybody can send signals: only those of the one who owns the name count.
    if message.message_type is not MessageType.SIGNAL or message.sender != owner:
        return
    told = {}
    if message.member == "InterfacesAdded":
        told = message.body[1].get(JOB, {})
    elif message.member == "PropertiesChanged" and message.body[0] == JOB:
        told = message.body[1]
    if "Step" in told and "Progress" in told:
        print(f"{told['Progress'].value:4.0%}  {told['Step'].value}", flush=True)


async def main() -> int:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    # Whoever is called first starts nestd, if it does not run; then its name has an owner.
    await bus.call(Message(NESTD, PATH, f"{DBUS}.Peer", "Ping"))
    owner = await ask_bus(bus, "GetNameOwner", NESTD)
    bus.add_message_handler(lambda message: show(message, owner.body[0] if owner.body else ""))
    await ask_bus(bus, "AddMatch", f"type='signal',sender='{NESTD}',path_namespace='{PATH}'")

    # The flag lets polkit ask for a password. There is no limit of time.
    interactive = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
    call = Message(NESTD, PATH, MANAGER, "Enable", flags=interactive, signature="a{sv}", body=[{}])
    answer = await bus.call(call)
    bus.disconnect()
    if answer.message_type is MessageType.ERROR:
        print(f"{answer.error_name}: {answer.body[0]}", file=sys.stderr)
        print(TO_DO.get(answer.error_name, "The journal tells more: journalctl -u nestd"), file=sys.stderr)
        return 1
    result = {key: value.value for key, value in answer.body[0].items()}
    print(f"Nesting is {result['nested']} now; at the next boot: {result['nested-at-boot']}.")
    if result["reboot-required"]:
        print("Only a reboot can settle it.")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
