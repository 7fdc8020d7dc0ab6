# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who writes the kernel command line here: the one back end that fits, or a refusal that says what to do."""

# No postponed annotations here: see nestd/model.py.

from collections.abc import Sequence
from typing import NamedTuple

from nestd import errors
from nestd.host.bootloader import NextBoot
from nestd.host.machine import Host
from nestd.nesting.loaders.probe import Fit, Loader, Probe
from nestd.text.arguments import Edit


class Found(NamedTuple):
    """A back end, and what it says of this machine."""

    loader: Loader
    probe: Probe


def every() -> tuple[Loader, ...]:
    """All back ends, in the order in which they are told."""
    from nestd.nesting.loaders.bootc import Bootc  # noqa: PLC0415 -- only where the command line is changed
    from nestd.nesting.loaders.grub import Grub  # noqa: PLC0415
    from nestd.nesting.loaders.grubby import Grubby  # noqa: PLC0415
    from nestd.nesting.loaders.kernelinstall import KernelInstall  # noqa: PLC0415
    from nestd.nesting.loaders.ostree import Ostree  # noqa: PLC0415
    from nestd.nesting.loaders.rpmostree import RpmOstree  # noqa: PLC0415

    return RpmOstree(), Bootc(), Ostree(), Grubby(), Grub(), KernelInstall()


def named(name: str) -> Loader:
    """The back end of that name, for what it once set. InvalidArgs: there is none."""
    loaders = every()
    for one in loaders:
        if one.name == name:
            return one
    names = ", ".join(one.name for one in loaders)
    raise errors.InvalidArgs(f"There is no boot loader back end {name!r}. There are: {names}.")


async def probed(host: Host, following: NextBoot | None) -> tuple[Found, ...]:
    """What every back end says of this machine. Raises OSError."""
    return tuple([Found(one, await one.probe(host, following)) for one in every()])


def choose(host: Host, following: NextBoot | None, found: Sequence[Found], name: str, wanted: Edit) -> Loader:
    """The one that is named, if it does not say that it cannot; without a name the only one that fits.

    Raises InvalidArgs for a name that there is not, and BootloaderUnknown, which says which words of `wanted`
    to write where on this kind of system.
    """
    from nestd.nesting.loaders import advice  # noqa: PLC0415 -- mostly there is nothing to be said

    if name:
        known = {one.loader.name: one for one in found}
        if name not in known:
            named(name)
        one = known[name]
        if one.probe.fit is Fit.NOT:
            raise errors.BootloaderUnknown(advice.refused(one.loader.title, one.probe.why))
        return one.loader
    fitting = [one for one in found if one.probe.fit is Fit.FITS]
    if len(fitting) == 1:
        return fitting[0].loader
    if fitting:
        several = [(one.loader.name, one.loader.title, one.probe.why) for one in fitting]
        raise errors.BootloaderUnknown(advice.several(several))
    unsure = [(one.loader.name, one.probe.why) for one in found if one.probe.fit is Fit.UNSURE]
    raise errors.BootloaderUnknown(advice.none(host.root, following, wanted, unsure))
