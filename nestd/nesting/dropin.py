# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd's own file in /etc/modprobe.d: what it says, and what it was told.

The name sorts after every other file's, because later options win (modprobe.d(5)).
"""

from __future__ import annotations

from nestd.model import Driver, Nesting, Policy
from nestd.nesting.drivers import read_switch
from nestd.text import cmdline, modprobe

PATH = "/etc/modprobe.d/zz-nestd.conf"

_TEXT = """\
# Nested virtualization, as nestd was told. Change it with `nestctl enable` or `nestctl disable`;
# edit nothing here: the file is written anew each time. To have nestd forget it, remove the file.
options {module} {switch}={value}
"""


def text(driver: Driver, nested: Nesting) -> str:
    """The whole file that keeps `nested` for `driver`."""
    value = driver.on if nested is Nesting.ON else driver.off
    return _TEXT.format(module=driver.name, switch=driver.switch, value=value)


def policy(content: str | None, driver: Driver | None) -> Policy:
    """What the file says that nestd was told to keep; UNMANAGED without it, or for another driver."""
    if content is None or driver is None:
        return Policy.UNMANAGED
    for directive in reversed(modprobe.parse(content)):
        told = switch_of(directive, driver)
        if told is not None:
            return Policy(told.value)
    return Policy.UNMANAGED


def switch_of(directive: modprobe.Directive, driver: Driver) -> Nesting | None:
    """What an `options` line gives the driver's switch; None if it does not speak of it."""
    if directive.module != driver.name:
        return None
    argument = modprobe.setting(directive, driver.switch)
    return None if argument is None else meaning(argument)


def meaning(argument: cmdline.Argument) -> Nesting | None:
    """What an argument that sets the switch makes of it; None for what the kernel would not take."""
    # A bool without a value means yes (kernel/params.c, param_set_bool).
    return Nesting.ON if argument.value is None else read_switch(argument.value)
