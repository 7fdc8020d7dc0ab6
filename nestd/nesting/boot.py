# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the next boot will give: the merged configuration, solved for one driver's switch.

For a module: the kernel's default, then every `options` line of modprobe.d in kmod's order
(later wins), then the kernel command line, which modprobe puts last. For a driver that is built
in, modprobe.d does not count.
"""

from __future__ import annotations

from dataclasses import dataclass

from nestd.host.root import Root
from nestd.model import BootSetting, Driver, DriverState, Nesting
from nestd.nesting import dropin
from nestd.text import cmdline, modprobe

COMMAND_LINE = "kernel command line"
KERNEL_DEFAULT = "kernel default"


@dataclass(frozen=True, slots=True)
class Saying:
    """One place that says something about the switch."""

    source: str
    nested: Nesting


@dataclass(frozen=True, slots=True)
class Configuration:
    """What modprobe and the kernel read at boot: files in their order, and the command line."""

    files: tuple[tuple[str, str], ...]
    command_line: str

    @classmethod
    def read(cls, root: Root) -> Configuration:
        """Read it all. OSError where something is there and cannot be read."""
        names = {folder: root.files(folder) for folder in modprobe.FOLDERS}
        files = []
        for path in modprobe.search(names):
            content = root.read(path)
            if content is not None:
                files.append((path, content))
        return cls(tuple(files), root.read("/proc/cmdline") or "")

    @property
    def dropin(self) -> str | None:
        """The text of nestd's own drop-in; None if there is none."""
        return dict(self.files).get(dropin.PATH)

    def with_dropin(self, content: str) -> Configuration:
        """The same with nestd's drop-in saying `content`, in its place in the order."""
        others = {path: text for path, text in self.files if path != dropin.PATH}
        others[dropin.PATH] = content
        ordered = sorted(others.items(), key=lambda item: item[0].rpartition("/")[2])
        return Configuration(tuple(ordered), self.command_line)

    def sayings(self, driver: Driver, state: DriverState) -> tuple[Saying, ...]:
        """Everything that speaks of the driver's switch, the weakest first."""
        said = [Saying(KERNEL_DEFAULT, driver.default)]
        if state is not DriverState.BUILTIN:
            for path, content in self.files:
                for directive in modprobe.parse(content):
                    nested = dropin.switch_of(directive, driver)
                    if nested is not None:
                        said.append(Saying(f"{path}:{directive.line}", nested))
        # modprobe reads on behind a bare "--", the kernel does not.
        arguments = cmdline.parse(self.command_line, whole=state is not DriverState.BUILTIN)
        argument = cmdline.parameter(arguments, driver.name, driver.switch)
        if argument is not None and (nested := dropin.meaning(argument)) is not None:
            said.append(Saying(COMMAND_LINE, nested))
        return tuple(said)


def solve(configuration: Configuration, driver: Driver | None, state: DriverState) -> BootSetting:
    """What the next boot gives, who decides it, and who says otherwise and loses."""
    if driver is None or not driver.switch or state is DriverState.MISSING:
        return BootSetting(Nesting.UNSUPPORTED, "", ())
    said = configuration.sayings(driver, state)
    winner = said[-1]
    losers = tuple(
        saying.source
        for saying in said[:-1]
        if saying.nested is not winner.nested and saying.source != KERNEL_DEFAULT
    )
    return BootSetting(winner.nested, winner.source, losers)
