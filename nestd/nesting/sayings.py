# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the lines of modprobe.d and of the kernel command line make of a driver's switch, each by itself.

Sources: libkmod-module.c (options, install), kernel/module/main.c (module_blacklist, nomodule),
init/main.c (initcall_blacklist).
"""

# No postponed annotations here: see nestd/model.py.

from typing import NamedTuple

from nestd.model import Driver, Nesting
from nestd.nesting import drivers, installs
from nestd.text import cmdline, modprobe, modules, parameter

KERNEL_DEFAULT = "kernel default"
# Their switch is an int, as long as the kernel does not show Y or N (arch/x86/kvm/svm/svm.c, arch/s390/kvm).
INT_SWITCHES = frozenset({"kvm_amd", "kvm"})
_INITCALLS = {"kvm_intel": {"vmx_init", "vt_init"}, "kvm_amd": {"svm_init"}}
# Lines of modprobe.d, each with its file and line.
Told = tuple[tuple[str, modprobe.Directive], ...]


class Saying(NamedTuple):
    """One place that says something about the switch, and what it does, as a clause."""

    source: str
    nested: Nesting
    clause: str


def directives(files: tuple[tuple[str, str], ...], where: str = "") -> Told:
    """Every line of modprobe.d's `files`, in order, with its file (behind `where`) and line."""
    return tuple(
        (f"{where}{path}:{directive.line}", directive)
        for path, content in files
        for directive in modprobe.parse(content)
    )


def copied(files: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Those of an initramfs's files that count, in the order in which modprobe reads them there."""
    names: dict[str, list[str]] = {}
    for path, _ in files:
        folder, _, name = path.rpartition("/")
        names.setdefault(folder, []).append(name)
    texts = dict(files)
    return tuple((path, texts[path]) for path in modprobe.search(names))


def modular(
    driver: Driver,
    told: Told,
    line: str,
    source: str,
    *,
    needed: tuple[str, ...],
    index: str,
    flags: frozenset[str],
) -> list[Saying]:
    """What modprobe and the kernel make of a module: `told`, and the command line, written at `source`.

    Behind what is said of the switch comes what keeps the driver from being loaded. `needed` are the modules
    that it needs, `index` is modules.dep and modules.builtin.
    """
    said: list[Saying] = []
    refused: list[Saying] = []
    given = [
        (where, directive.arguments)
        for where, directive in (*told, *((source, one) for one in modprobe.command_line(line)))
        if directive.command == "options" and directive.module == driver.name
    ]
    for install in installs.found(told, needed, index):
        if install.never:
            clause = f"says install {install.module} {install.command}, so that {driver.name} does not load"
            refused.append(Saying(install.source, Nesting.OFF, clause))
        elif install.module == driver.name:
            given = [(install.source, install.weak), *given, (install.source, install.arguments)]
    for where, words in given:
        for one in map(cmdline.argument, words):
            if _is(one.name, driver.switch):
                nested = taken(driver, one, flags)
                (refused if nested is None else said).append(_setting(where, nested, one, driver))
    return said + refused + forbidden(line, source, needed)


def builtin(driver: Driver, line: str, source: str, flags: frozenset[str]) -> list[Saying]:
    """What the kernel makes of the command line for a driver that is built in."""
    said = []
    for one in cmdline.parse(line):
        # A value that it does not take, the kernel leaves alone.
        if _is(one.name, f"{driver.name}.{driver.switch}") and (nested := taken(driver, one, flags)):
            said.append(_setting(source, nested, one, driver))
    return said


def not_started(driver: Driver, line: str, source: str) -> list[Saying]:
    """What keeps the driver from starting, built in or not."""
    initcalls = _INITCALLS.get(driver.name, set()) & set(_listed(line, "initcall_blacklist", every=True))
    if not initcalls:
        return []
    clause = f"says initcall_blacklist={','.join(initcalls)}, so that {driver.name} does not start"
    return [Saying(source, Nesting.OFF, clause)]


def taken(driver: Driver, argument: cmdline.Argument, flags: frozenset[str]) -> Nesting | None:
    """What the kernel makes of a value; None for what it refuses (EINVAL).

    `flags` are the drivers whose switch shows itself as a bool.
    """
    if driver.switch != "nested":
        return drivers.switch_of(driver, argument.value or "")
    if driver.name in INT_SWITCHES - flags:
        number = parameter.integer(argument.value)
        return None if number is None else Nesting.ON if number else Nesting.OFF
    flag = parameter.boolean(argument.value)
    return None if flag is None else Nesting.ON if flag else Nesting.OFF


def forbidden(line: str, source: str, needed: tuple[str, ...]) -> list[Saying]:
    """What on the command line keeps the kernel from loading one of the modules `needed`."""
    found = []
    if barred := sorted(set(needed) & set(_listed(line, "module_blacklist"))):
        found.append(Saying(source, Nesting.OFF, f"says module_blacklist={','.join(barred)}"))
    # A boolean without a value counts as yes (kernel/module/main.c, modules_disabled).
    if any(one.name == "nomodule" and parameter.boolean(one.value) for one in cmdline.parse(line)):
        found.append(Saying(source, Nesting.OFF, "says nomodule, so that no module at all is loaded"))
    return found


def _listed(line: str, name: str, *, every: bool = False) -> list[str]:
    """The names in a list on the command line: in the last argument of that name, or in all of them."""
    found = [one.value or "" for one in cmdline.parse(line) if _is(one.name, name)]
    return [name for value in (found if every else found[-1:]) for name in value.split(",")]


def _setting(source: str, nested: Nesting | None, argument: cmdline.Argument, driver: Driver) -> Saying:
    words = argument.name if argument.value is None else f"{argument.name}={argument.value}"
    if nested is None:
        refused = f"says {words}, a value that the kernel refuses, so that {driver.name} does not load"
        return Saying(source, Nesting.OFF, refused)
    return Saying(source, nested, f"says {words}")


def _is(name: str, wanted: str) -> bool:
    return modules.normalize(name) == modules.normalize(wanted)
