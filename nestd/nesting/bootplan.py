# SPDX-License-Identifier: LGPL-2.1-or-later
"""The boot half of a plan: what the next boot reads, so that it gives what is wished.

A driver that is a module takes its option from the drop-in, and the initramfs is made anew where it carries
another. The kernel command line is written only where nothing else will do: for a driver that is built in, or
where somebody's argument says otherwise and is to be replaced.
"""

from __future__ import annotations

from typing import NamedTuple

from nestd import errors
from nestd.host import files
from nestd.host.machine import Host
from nestd.model import BootSetting, Driver, DriverState, Extension, Nesting
from nestd.nesting import boot, dropin, images, obstacles, own
from nestd.nesting.boot import Configuration
from nestd.nesting.loaders import advice, choose
from nestd.nesting.own import Own
from nestd.nesting.status import Reading
from nestd.nesting.steps import Run, Step, Wish, WriteFile, argument
from nestd.text import cmdline
from nestd.text.arguments import Edit, edited, has

_RECORDS = (own.PATH, own.SCRIPT)


class Aim(NamedTuple):
    """What the boot half is to come to.

    `dropin` is the text of nestd's drop-in (None: there is none), `wanted` all that nestd has a hand in on
    the command line, `after` the configuration as it will be, every initramfs being made of it. `nested` is
    what is told where only the command line says it. `optional`: without the words to be added it is so, too.
    """

    dropin: str | None
    wanted: Edit
    after: Configuration
    nested: Nesting | None = None
    optional: bool = False


async def make(host: Host, reading: Reading, wish: Wish, loader: str) -> tuple[Step, ...]:
    """The steps. Raises NotSupported, Overridden, BootloaderUnknown, BootloaderFailed and OSError."""
    had = _had(host)
    goal = aim(reading, had, wish)
    owns = had
    there = had if wish.nested is None else _still(reading.configuration, had)
    at_loader: tuple[Step, ...] = ()
    try:
        if goal.wanted != Edit(there.added, there.removed):
            owns, at_loader = await _at_loader(host, reading.configuration, had, goal, wish.loader, loader)
        renewals = await _renewals(host, reading, goal.after)
    except (errors.ToolFailed, errors.ToolMissing) as failure:
        raise errors.BootloaderFailed(f"{str(failure).rstrip('.')}. Nothing was changed.") from failure
    if wish.nested is None:
        owns = Own()
    else:
        done = (*had.renewals, *((run.keeps[0], *run.argv) for run in renewals))
        owns = owns._replace(nested=goal.nested, renewals=tuple(dict.fromkeys(done)))
    written = _written(reading.configuration, goal)
    records = _records(host, owns)
    if owns.empty:
        # As long as there is something to be taken back, it is known what.
        return (*written, *at_loader, *renewals, *records)
    return (*records, *written, *at_loader, *renewals)


def _had(host: Host) -> Own:
    """What nestd has set. BootloaderFailed: nobody can tell, so nothing may be taken back or replaced."""
    try:
        return own.read(host.root)
    except errors.Malformed as failure:
        raise errors.BootloaderFailed(
            f"{own.PATH}, which says what nestd has set for the next boots, cannot be understood. Nothing "
            f"was changed. Run `sh {own.SCRIPT}`, which takes it back, remove both files, then try again."
        ) from failure


def _still(configuration: Configuration, had: Own) -> Own:
    """What nestd has set, less what somebody has changed since."""
    line = configuration.arguments[0]
    return had._replace(
        added=tuple(one for one in had.added if has(line, one)),
        removed=tuple(one for one in had.removed if not has(line, one)),
    )


def aim(reading: Reading, had: Own, wish: Wish) -> Aim:
    """What it is to come to, `had` being what nestd has set. Raises NotSupported and Overridden. Pure."""
    configuration, driver = reading.configuration, reading.driver
    # nestd's own words are its own to change.
    line = edited(configuration.arguments[0], Edit(remove=had.added))
    after = configuration.renewed().with_line(line)
    if wish.nested is None:
        return Aim(None, Edit(), after.with_dropin(None).with_line(edited(line, Edit(had.removed))))
    if reading.status.nested_at_boot is Nesting.UNSUPPORTED or driver is None:
        if wish.nested is Nesting.OFF:
            return Aim(configuration.dropin, Edit(had.added, had.removed), configuration)
        raise obstacles.refusal(reading.status)
    state = configuration.next_driver(driver, reading.status.driver_state)[1]
    if state is DriverState.BUILTIN:
        return _by_argument(reading, had, wish, after, driver)
    text = dropin.text(driver, wish.nested)
    goal = Aim(text, Edit(remove=had.removed), after.with_dropin(text))
    outcome = boot.solve(goal.after, driver, reading.status.driver_state)
    if outcome.nested is not wish.nested and (theirs := _against(goal.after, driver, wish.nested)):
        goal = _replaced(goal, theirs, outcome, wish)
        outcome = boot.solve(goal.after, driver, reading.status.driver_state)
    _require(wish, outcome)
    return goal


def _by_argument(reading: Reading, had: Own, wish: Wish, after: Configuration, driver: Driver) -> Aim:
    """For a driver that is built in: its argument alone counts."""
    assert wish.nested is not None
    state = reading.status.driver_state
    goal = Aim(after.dropin, Edit(remove=had.removed), after, wish.nested)
    if theirs := _against(after, driver, wish.nested):
        goal = _replaced(goal, theirs, boot.solve(after, driver, state), wish)
    # An argument without a value (arm64, off) is none; and what somebody else says already is not said twice.
    if argument(driver, wish.nested) and not _said(goal.after, driver):
        more = word(driver, wish.nested)
        optional = boot.solve(goal.after, driver, state).nested is wish.nested
        line = edited(goal.after.arguments[0], Edit((more,)))
        wanted = Edit((more,), goal.wanted.remove)
        goal = goal._replace(wanted=wanted, after=goal.after.with_line(line), optional=optional)
    _require(wish, boot.solve(goal.after, driver, state))
    return goal


def word(driver: Driver, nested: Nesting) -> str:
    """The word of the kernel command line that gives the driver's switch its value."""
    name = "kvm-arm" if driver.extension is Extension.EL2 else driver.name
    return f"{name}.{driver.switch}={argument(driver, nested)}"


def _said(configuration: Configuration, driver: Driver) -> list[str]:
    """The words of the command line that set the driver's switch."""
    name = f"{driver.name}.{driver.switch}".replace("-", "_")
    words = cmdline.words(configuration.arguments[0])
    return [word for word in words if cmdline.argument(word).name.replace("-", "_") == name]


def _against(configuration: Configuration, driver: Driver, nested: Nesting) -> list[str]:
    """Those of them that say otherwise."""
    return [
        word
        for word in _said(configuration, driver)
        if configuration.taken(driver, cmdline.argument(word)) is not nested
    ]


def _replaced(goal: Aim, theirs: list[str], outcome: BootSetting, wish: Wish) -> Aim:
    """Without what somebody else put on the command line, if that may be. Raises Overridden."""
    if not wish.replace:
        said = " ".join(theirs)
        raise errors.Overridden(
            f"{goal.after.arguments[1]} has {said}, which somebody else put on the kernel command line, so "
            f"the next boot would give nested {outcome.nested}. Nothing was changed. Take it away there, or "
            "have nestd do it: the option replace (nestctl --replace); `nestctl revert` brings it back."
        )
    gone = tuple(dict.fromkeys((*goal.wanted.remove, *theirs)))
    line = edited(goal.after.arguments[0], Edit(remove=gone))
    return goal._replace(wanted=goal.wanted._replace(remove=gone), after=goal.after.with_line(line))


def _require(wish: Wish, outcome: BootSetting) -> None:
    if outcome.nested is not wish.nested:
        raise errors.Overridden(
            f"The next boot would still give nested {outcome.nested}: {outcome.source} says so and wins over "
            f"{dropin.PATH}. Nothing was changed. Change it there, then try again."
        )


async def _at_loader(
    host: Host, configuration: Configuration, had: Own, goal: Aim, named: str, configured: str
) -> tuple[Own, tuple[Step, ...]]:
    """The steps at the boot loader, and what nestd has set after them."""
    following = configuration.next_boot
    try:
        if had.loader:
            if named not in {"", had.loader}:
                raise errors.BootloaderUnknown(
                    f"nestd has set its arguments with {had.loader}, so they are not changed with {named}. "
                    "Take them back first: nestctl revert."
                )
            chosen = choose.named(had.loader)
        else:
            found = await choose.probed(host, following)
            chosen = choose.choose(host, following, found, named or configured, goal.wanted)
    except errors.BootloaderUnknown:
        if goal.optional and not goal.wanted.remove and not had.loader:
            return had, ()  # it is so without them, and nobody can add them
        raise
    if not goal.wanted.empty and (following is None or following.doubt):
        why = following.doubt if following else "no boot loader's configuration is found"
        raise errors.BootloaderUnknown(
            f"What is booted next cannot be told ({why}), so a change of its command line could not be read "
            f"back. Nothing was changed. {advice.by_hand(host.root, following, goal.wanted)}"
        )
    made, owns = await chosen.steps(host, had, goal.wanted)
    return owns, made


async def _renewals(host: Host, reading: Reading, after: Configuration) -> tuple[Run, ...]:
    driver, state = reading.driver, reading.status.driver_state
    if driver is None or not driver.switch:
        return ()
    there, where = after.next_driver(driver, state)
    if where in {DriverState.BUILTIN, DriverState.MISSING}:
        return ()
    return await images.renewals(host, after, there, where)


def _written(configuration: Configuration, goal: Aim) -> tuple[Step, ...]:
    before = configuration.dropin
    return () if goal.dropin == before else (WriteFile(dropin.PATH, goal.dropin, before),)


def _records(host: Host, owns: Own) -> tuple[Step, ...]:
    """What nestd has set, noted; and the script that takes it back."""
    lines = choose.named(owns.loader).script(owns) if owns.loader else ""
    wanted = (own.text(owns), own.script(owns, lines))
    before = tuple(files.read(host.root, path) for path in _RECORDS)
    return tuple(
        WriteFile(path, text, old)
        for path, text, old in zip(_RECORDS, wanted, before, strict=True)
        if text != old
    )
