# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a back end is that writes the kernel command line: it says whether it fits, and gives the steps."""

# No postponed annotations here: see nestd/model.py.

from enum import StrEnum
from typing import NamedTuple, Protocol

from nestd.host.bootloader import NextBoot
from nestd.host.machine import Host
from nestd.nesting.own import Own
from nestd.nesting.steps import Step
from nestd.text.arguments import Edit


class Fit(StrEnum):
    """Whether a back end writes this machine's kernel command line. UNSURE is taken only if it is named."""

    FITS = "fits"
    NOT = "not"
    UNSURE = "unsure"


class Probe(NamedTuple):
    """What a back end says of this machine. `why` is a clause that names what it was seen by."""

    fit: Fit
    why: str

    @classmethod
    def fits(cls, why: str) -> "Probe":
        """It writes the command line here."""
        return cls(Fit.FITS, why)

    @classmethod
    def no(cls, why: str) -> "Probe":
        """It does not."""
        return cls(Fit.NOT, why)

    @classmethod
    def unsure(cls, why: str) -> "Probe":
        """It may, or something is in its way."""
        return cls(Fit.UNSURE, why)


class Loader(Protocol):
    """A back end, without any state. `name` is what the option loader takes, `title` is for a person."""

    name: str
    title: str

    async def probe(self, host: Host, following: NextBoot | None) -> Probe:
        """Whether it writes the command line of what is booted next. Raises OSError."""

    async def steps(self, host: Host, own: Own, wanted: Edit) -> tuple[tuple[Step, ...], Own]:
        """The steps from what nestd has set until now (`own`) to all of `wanted`, and the Own afterwards.

        An empty `wanted` takes everything back: byte for byte where nobody else has touched it since, else
        only nestd's own words. Of the Own only `loader`, `added`, `removed` and `notes` are the back end's.
        Raises BootloaderUnknown, BootloaderFailed, Overridden, OSError, ToolFailed; nothing is changed here.
        """

    def script(self, own: Own) -> str:
        """Lines of sh that do what the steps to nothing do, for when nestd is gone. Twice is as once."""
