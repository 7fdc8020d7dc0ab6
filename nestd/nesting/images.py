# SPDX-License-Identifier: LGPL-2.1-or-later
"""The initramfs of every installed kernel, held against modprobe.d: which must be made anew, and how.

One must if it carries the driver, or a line of modprobe.d that speaks of the driver's switch, and what it
says of the switch is not what it would be given now. What cannot be looked into is left alone and told, in
the journal and by Diagnose: to replace what boots the machine, without knowing what is in it, would be worse
than an option that hardly any image carries.
"""

from __future__ import annotations

from nestd import errors, log
from nestd.host import bootimages
from nestd.host.initramfs import Image
from nestd.host.machine import Host
from nestd.model import Driver, DriverState
from nestd.nesting import boot, dropin, makers, sayings, seen
from nestd.nesting.boot import Configuration
from nestd.nesting.steps import Run
from nestd.text import modprobe, modules


async def learn(host: Host, configuration: Configuration, driver: Driver | None) -> Image | None:
    """What is in the initramfs of the next boot, looked into if it is new (seconds), and remembered.

    None: there is none, or no driver with a switch that it could carry. The next reading counts it. OSError.
    """
    if driver is None or not driver.switch:
        return None
    path = bootimages.of_next_boot(host.root, configuration.next_boot, configuration.release)
    return await seen.look(host, path) if path else None


async def renewals(host: Host, after: Configuration, driver: Driver, state: DriverState) -> tuple[Run, ...]:
    """What makes the images fit `after`, the configuration as it will be.

    Raises Overridden where the image of the next boot would still say otherwise, BootloaderFailed where one
    cannot be made anew, each with what to do; and OSError. Looking takes seconds an image, once in its life.
    """
    runs: dict[Run, None] = {}
    for one in bootimages.installed(host.root, after.next_boot, after.release):
        image = await seen.look(host, one.path)
        carried = driver.name in image.modules
        if image.doubt and not carried:
            log.warning(
                f"Whether {one.path} carries {driver.name} cannot be told, so it is left alone: {image.doubt}"
            )
            continue
        says = _speaking(sayings.copied(image.files), driver)
        if not carried and not says:
            continue
        files = makers.given(host.root, image.maker, after.files)
        stale = bool(image.doubt) or says != _speaking(files, driver)
        if carried and one.next:
            _require(after, driver, state, image._replace(files=files if stale else image.files))
        if stale:
            runs.update(dict.fromkeys(makers.renewal(host, one, image)))
    return tuple(runs)


def _speaking(files: makers.Files, driver: Driver) -> tuple[tuple[str, str | None], ...]:
    """What the files say of the driver's switch: each one's name, and the value, in their order.

    Not the folder: /lib and /usr/lib are one, and in an image they are called as its maker likes.
    """
    return tuple(
        (path.rpartition("/")[2], argument.value)
        for path, content in files
        for directive in modprobe.parse(content)
        if directive.module == modules.normalize(driver.name)
        and (argument := modprobe.setting(directive, driver.switch)) is not None
    )


def _require(after: Configuration, driver: Driver, state: DriverState, image: Image) -> None:
    """Refuse what making it anew would not bring about. To take everything back is never refused."""
    wished = boot.solve(after.renewed(), driver, state)
    outcome = boot.solve(after._replace(image=image), driver, state)
    if after.dropin is None or outcome.nested is wished.nested:
        return
    raise errors.Overridden(
        f"The next boot would still give nested {outcome.nested}: {image.path} carries {driver.name}, and "
        f"made anew it would not get {dropin.PATH}, as {image.maker or 'its maker'} is set up. Nothing was "
        "changed. "
        f"{makers.remedy(image.maker)}"
    )
