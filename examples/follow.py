#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Follow what happens: a line for each event, until it is interrupted. With GLib (python3-gi).

examples/follow.py
"""

import sys
from contextlib import suppress

from gi.repository import Gio, GLib

NESTD, PATH, MANAGER = "org.nestd1", "/org/nestd1", "org.nestd1.Manager"
WORDS = {
    "Nested": "guests get nesting: {}",
    "NestedAtBoot": "at the next boot: {}",
    "PendingChange": "waits until KVM is idle: {}",
    "Obstacle": "in the way: {}",
    "RebootRequired": "a reboot is needed: {}",
}


def say(text: str) -> None:
    print(text, flush=True)


def changed(_proxy: Gio.DBusProxy, values: GLib.Variant, _invalidated: list[str]) -> None:
    """PropertiesChanged: somebody has changed something."""
    for name, value in values.unpack().items():
        if name in WORDS:
            say(WORDS[name].format(value if value != "" else "nothing"))


def happened(_proxy: Gio.DBusProxy, _sender: str, name: str, values: GLib.Variant) -> None:
    """The signals of the manager. Gio takes them from the owner of the name alone."""
    if name == "Drift":
        say("drift: nestd was told {}, it is {}: {}".format(*values.unpack()))
    elif name == "GuestExited":
        _path, guest, result = values.unpack()
        say(f"the guest {guest} has ended: {result}")
    elif name == "ModuleEvent":
        say("module {1}: {0}".format(*values.unpack()))


def owned(proxy: Gio.DBusProxy, _property: object = None) -> None:
    """nestd came, or went; it may be restarted at any time, and the proxy stays good."""
    if not proxy.get_name_owner():
        say("nestd is not running")
        return
    try:
        # The proxy holds the properties from its start on; GetStatus has more, and is one moment.
        [status] = proxy.call_sync("GetStatus", None, Gio.DBusCallFlags.NONE, -1, None).unpack()
    except GLib.Error as error:
        if Gio.DBusError.get_remote_error(error) == "org.freedesktop.DBus.Error.NoReply":
            say("nestd went away while it was asked")
            return
        raise
    say("nestd runs: nesting {nested}, at the next boot {nested-at-boot}".format(**status))


def main() -> int:
    try:
        # No flags: this starts nestd if it does not run, and loads its properties.
        proxy = Gio.DBusProxy.new_for_bus_sync(
            Gio.BusType.SYSTEM, Gio.DBusProxyFlags.NONE, None, NESTD, PATH, MANAGER, None
        )
        proxy.connect("g-signal", happened)
        proxy.connect("g-properties-changed", changed)
        proxy.connect("notify::g-name-owner", owned)
        owned(proxy)
    except GLib.Error as error:
        print(error.message, file=sys.stderr)  # Gio has put the name before the text
        return 1
    with suppress(KeyboardInterrupt):
        GLib.MainLoop().run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
