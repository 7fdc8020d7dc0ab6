# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Diagnose says of the next boot: who decides, who loses, and what only looks decided.

Where an initramfs carries the driver and says otherwise than /etc, NestedAtBoot tells what it gives; the row
`initramfs` explains why, and what cannot be told of an image.
"""

from __future__ import annotations

from collections.abc import Iterator

from nestd.host import bootloader, initramfs
from nestd.model import BootSetting, Check, Driver, DriverState, Verdict
from nestd.nesting import boot
from nestd.nesting.boot import Configuration
from nestd.nesting.sayings import Saying
from nestd.text import cmdline, modprobe

_LOADING = frozenset({"module_blacklist", "initcall_blacklist", "nomodule", "modprobe.blacklist"})
_RENEW = (
    "Say what is wanted, and nestd makes it anew: `nestctl enable --scope=boot`, or `nestctl disable "
    "--scope=boot`."
)


def checks(
    configuration: Configuration,
    driver: Driver | None,
    state: DriverState,
    image: initramfs.Image | None,
    template: str | None = None,
) -> tuple[Check, ...]:
    """The rows next-boot, command-line, overridden, install, blacklist, initramfs; those that make sense.

    `template` is the text of /etc/kernel/cmdline, of which entries are made; None without it.
    """
    if driver is None or not driver.switch:
        return ()
    there, where = configuration.next_driver(driver, state)
    setting, said = boot.solve(configuration, driver, state), configuration.sayings(driver, state)
    rows = [
        _next_boot(configuration, driver, setting, said),
        _command_line(configuration, there, template),
        *_overridden(setting, said),
    ]
    if where is not DriverState.BUILTIN:
        rows += [*_installs(configuration, there), _blacklist(configuration, there)]
        rows += [_initramfs(configuration, driver, state, image)] if image is not None else []
    return tuple(rows)


def _warned(identity: str, message: str, remedy: str) -> Check:
    return Check(identity, Verdict.WARN, message, remedy)


def _next_boot(
    configuration: Configuration, driver: Driver, setting: BootSetting, said: tuple[Saying, ...]
) -> Check:
    following = configuration.next_boot
    other = ""
    if following and following.release not in {"", configuration.release}:
        other = f" It boots another kernel than the one that runs: {following.release}."
    if not setting.source:
        return _warned(
            "next-boot",
            f"The next boot gives no nesting: its kernel has no {driver.name}.{other}",
            "Install the kernel's package that has the module, or boot another kernel.",
        )
    who = f"{said[-1].source} {said[-1].clause}"
    if setting.source == boot.KERNEL_DEFAULT:
        who = f"nothing is configured, and that is what {driver.name} does by itself"
    message = f"The next boot gives nesting {setting.nested}: {who}.{other}"
    doubts = "; ".join(_doubts(configuration, driver))
    if doubts:
        return _warned(
            "next-boot",
            f"{message} That cannot be told for certain: {doubts}.",
            "Look at what is named here; after the reboot, `nestctl status` tells what came of it.",
        )
    return Check.passed("next-boot", message)


def _doubts(configuration: Configuration, driver: Driver) -> Iterator[str]:
    following = configuration.next_boot
    if following is not None and following.doubt:
        yield following.doubt
    for one in configuration.installs(driver):
        if not one.judged:
            yield f"{one.source} runs a command instead of loading {one.module}"


def _relevant(line: str, driver: Driver) -> frozenset[str]:
    """The arguments that have to do with the driver, its modules and their loading."""
    names = _LOADING | {f"{driver.name}.{driver.switch}"}
    found = ((one.name.replace("-", "_"), one.value) for one in cmdline.parse(line, whole=True))
    return frozenset(name if value is None else f"{name}={value}" for name, value in found if name in names)


def _words(arguments: frozenset[str]) -> str:
    return " ".join(sorted(arguments)) or "nothing of the kind"


def _command_line(configuration: Configuration, driver: Driver, template: str | None) -> Check:
    identity, following = "command-line", configuration.next_boot
    if following is None:
        return Check.passed(
            identity,
            "No boot loader's configuration is found, so the running kernel's command line is taken for the "
            "next one's.",
        )
    if following.doubt:
        return _warned(
            identity,
            f"What {following.loader or 'the boot loader'} gives the next kernel cannot be told: "
            f"{following.doubt}. The running kernel's command line is taken for the next one's.",
            f"See in the boot loader's menu (GRUB: key e) whether it says {driver.name}.{driver.switch}=.",
        )
    now, then = (_relevant(one, driver) for one in (configuration.command_line, following.command_line))
    if now != then:
        return _warned(
            identity,
            f"The next kernel command line differs from the running one: {following.source} "
            f"({following.loader}) says {_words(then)}, the running kernel was given {_words(now)}.",
            f"If that is not meant, put it right where {following.source} is made from.",
        )
    # GRUB has a configuration of its own, from which this file is far.
    if template is not None and following.loader != "GRUB" and _relevant(template, driver) != then:
        return _warned(
            identity,
            f"{following.source} says {_words(then)}, but {bootloader.KERNEL_CMDLINE}, of which the next "
            f"kernel's entry is made, says {_words(_relevant(template, driver))}.",
            f"Edit {bootloader.KERNEL_CMDLINE}, or make the entries anew with kernel-install(8).",
        )
    message = f"{following.loader} gives the next kernel what the running one was given ({following.source})."
    return Check.passed(identity, message)


def _overridden(setting: BootSetting, said: tuple[Saying, ...]) -> Iterator[Check]:
    if setting.overridden:
        clauses = {one.source: one.clause for one in said}
        losers = "; ".join(f"{source} {clauses[source]}" for source in setting.overridden)
        yield _warned(
            "overridden",
            f"{setting.source} decides, and wins over what says otherwise: {losers}.",
            "Take away what does not count, so that nobody is misled by it.",
        )
    elif setting.source:
        yield Check.passed(
            "overridden", "Nothing that is configured for the next boot loses to something else."
        )


def _installs(configuration: Configuration, driver: Driver) -> Iterator[Check]:
    for one in configuration.installs(driver):
        instead = f"{one.source} has modprobe run `{one.command}` instead of loading {one.module}"
        if one.never:
            yield _warned(
                "install",
                f"{instead}: {driver.name} does not come up at boot.",
                f"Take the line away, if {driver.name} is wanted.",
            )
        elif not one.judged:
            yield _warned(
                "install",
                f"{instead}; what that does cannot be told.",
                f"Say it by a line that can: options {driver.name} {driver.switch}=... (modprobe.d(5)).",
            )


def _blacklist(configuration: Configuration, driver: Driver) -> Check:
    """What keeps udev from loading the driver, or modprobe from finding it by its name."""
    line, source = configuration.arguments
    barred, hidden = [], []
    for where, one in (*configuration.directives(), *((source, one) for one in modprobe.command_line(line))):
        words = " ".join((where, "says", one.command, one.module, *one.arguments))
        off = one.command == "alias" and one.arguments == ("off",)
        if (one.command == "blacklist" and one.module == driver.name) or (off and one.module[:4] == "cpu:"):
            barred.append(words)
        elif off and one.module == driver.name:
            hidden.append(words)
    if not barred and not hidden:
        return Check.passed("blacklist", f"Nothing keeps udev from loading {driver.name} at boot.")
    means = [f"{'; '.join(barred)}: udev does not load {driver.name} at boot."] if barred else []
    means += [f"{'; '.join(hidden)}: modprobe {driver.name} does not find it."] if hidden else []
    return _warned(
        "blacklist",
        f"{' '.join(means)} Once it is loaded, it has what is told for the next boot.",
        f"If guests are to start at boot, take that away, or load {driver.name} from a unit of your own.",
    )


def _initramfs(
    configuration: Configuration, driver: Driver, state: DriverState, image: initramfs.Image
) -> Check:
    identity, it = "initramfs", f"The initramfs {image.path}"
    if driver.name not in image.modules:
        if not image.doubt:
            message = f"{it} does not carry {driver.name}: /etc is there when it is loaded."
            return Check.passed(identity, message)
        return _warned(
            identity,
            f"Whether the initramfs carries {driver.name} cannot be told: {image.doubt}.",
            "Install the tool that belongs to your initramfs, and diagnose again.",
        )
    if image.doubt:
        message = f"{it} carries {driver.name}; what it gives it cannot be told: {image.doubt}."
        return _warned(identity, message, _RENEW)
    looked_into = configuration._replace(image=image)
    if looked_into.inside(driver) is None:
        message = f"{it} carries {driver.name}, but does not load it, because it is blacklisted."
        return Check.passed(identity, message)
    inside = boot.solve(looked_into, driver, state)
    outside = boot.solve(configuration.renewed(), driver, state)
    if inside.nested is outside.nested:
        message = f"{it} carries {driver.name}, and gives it what /etc gives: nesting {inside.nested}."
        return Check.passed(identity, message)
    return _warned(
        identity,
        f"{it} carries {driver.name} and an old copy of modprobe.d: it gives nesting {inside.nested} "
        f"({inside.source}), /etc gives {outside.nested} ({outside.source}). The driver is loaded from the "
        f"initramfs, so the next boot gives {inside.nested}.",
        _RENEW,
    )
