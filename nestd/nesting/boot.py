# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the next boot will give: the merged configuration, solved for one driver's switch.

For a module: the kernel's default, then every `options` line of modprobe.d in kmod's order
(later wins), then the kernel command line, which modprobe puts last; unless something keeps the
driver from being loaded at all. For a driver that is built in, modprobe.d does not count. The
command line is the one that the boot loader will give, or the running kernel's if that cannot be told.

An initramfs that carries the driver loads it (udev runs in it), with its own copy of modprobe.d, long before
/etc is there: then that copy counts in place of /etc. What is in it is known only if it was looked into once,
which a change of the next boot and Diagnose do (nestd/nesting/images.py); else it is taken to carry none.
"""

# No postponed annotations here: see nestd/model.py.

from typing import NamedTuple

from nestd.host import bootloader
from nestd.host.initramfs import Image
from nestd.host.root import Root
from nestd.model import BootSetting, Driver, DriverState, Nesting
from nestd.nesting import drivers, dropin, installs, sayings, seen
from nestd.nesting.sayings import Saying, Told
from nestd.text import cmdline, modprobe, modules

COMMAND_LINE = "kernel command line"
KERNEL_DEFAULT = sayings.KERNEL_DEFAULT


class Configuration(NamedTuple):
    """What modprobe and the kernel read at boot: files in their order, and the command line.

    `command_line` is the running kernel's, `release` its `uname -r`. `modules` is modules.dep and
    modules.builtin, read only if an `install` line is there. `elsewhere` tells where the drivers are in the
    next kernel if that is another one. `flags` are the drivers whose switch shows itself as a bool. `image`
    is what is known of the initramfs of the next boot.
    """

    files: tuple[tuple[str, str], ...]
    command_line: str
    next_boot: bootloader.NextBoot | None = None
    release: str = ""
    modules: str = ""
    elsewhere: tuple[tuple[str, DriverState], ...] = ()
    flags: frozenset[str] = frozenset()
    image: Image | None = None

    @classmethod
    def read(cls, root: Root) -> "Configuration":
        """Read it all. OSError where something is there and cannot be read."""
        names = {folder: root.files(folder) for folder in modprobe.FOLDERS}
        files = []
        for path in modprobe.search(names):
            content = root.read(path)
            if content is not None:
                files.append((path, content))
        release = (root.read("/proc/sys/kernel/osrelease") or "").strip()
        following = bootloader.read(root)
        other = following.release if following and following.release != release else ""
        image = _image(root, following, release)
        told = (*files, *(image.files if image else ()))
        return cls(
            tuple(files),
            root.read("/proc/cmdline") or "",
            following,
            release,
            _index(root, release) if any("install" in content for _, content in told) else "",
            _elsewhere(root, other) if other else (),
            frozenset(
                name
                for name in sayings.INT_SWITCHES
                if (root.read(f"/sys/module/{name}/parameters/nested") or "").strip() in {"Y", "N"}
            ),
            image,
        )

    @property
    def dropin(self) -> str | None:
        """The text of nestd's own drop-in; None if there is none."""
        return dict(self.files).get(dropin.PATH)

    def with_dropin(self, content: str | None) -> "Configuration":
        """The same with nestd's drop-in saying `content`, in its place in the order; None: without it."""
        others = {path: text for path, text in self.files if path != dropin.PATH}
        if content is not None:
            others[dropin.PATH] = content
        return self._replace(files=tuple(sorted(others.items(), key=lambda item: modprobe.order(item[0]))))

    def with_line(self, line: str) -> "Configuration":
        """The same with another command line of the next boot."""
        if self.next_boot is None or self.next_boot.doubt:
            return self._replace(command_line=line)
        return self._replace(next_boot=self.next_boot._replace(command_line=line))

    def renewed(self) -> "Configuration":
        """The same, with an initramfs that has been made of it: nothing older in one counts."""
        return self._replace(image=None)

    @property
    def arguments(self) -> tuple[str, str]:
        """The command line of the next boot as far as it can be told, and where it is written."""
        if self.next_boot is None or self.next_boot.doubt:
            return self.command_line, COMMAND_LINE
        return self.next_boot.command_line, self.next_boot.source

    def directives(self) -> Told:
        """Every line of modprobe.d, in order, with its file and line."""
        return sayings.directives(self.files)

    def inside(self, driver: Driver) -> Told | None:
        """The same of the initramfs of the next boot, if it is known to load the driver; else None.

        It does not where the driver is blacklisted: then udev leaves it alone, there as later.
        """
        if self.image is None or driver.name not in self.image.modules:
            return None
        told = sayings.directives(sayings.copied(self.image.files), f"{self.image.path}:")
        line, source = self.arguments
        for _, one in (*told, *((source, one) for one in modprobe.command_line(line))):
            if one.command == "blacklist" and one.module == driver.name:
                return None
        return told

    def next_driver(self, driver: Driver, state: DriverState) -> tuple[Driver, DriverState]:
        """The driver and where it is as the next kernel has them."""
        release = self.next_boot.release if self.next_boot else ""
        if not release or release == self.release:
            return driver, state
        default = next(
            (one.default for one in drivers.table(release) if one.name == driver.name), driver.default
        )
        return driver._replace(default=default), dict(self.elsewhere).get(driver.name, state)

    def sayings(self, driver: Driver, state: DriverState) -> tuple[Saying, ...]:
        """Everything that speaks of the driver's switch, the weakest first."""
        driver, state = self.next_driver(driver, state)
        line, source = self.arguments
        said = [Saying(KERNEL_DEFAULT, driver.default, "is what the driver does when nobody says anything")]
        if state is DriverState.BUILTIN:
            said += sayings.builtin(driver, line, source, self.flags)
        elif (inside := self.inside(driver)) is not None:
            said = self._from_image(driver, inside, said)
        else:
            said += self._modular(driver, self.directives(), line, source)
        said += sayings.not_started(driver, line, source)
        return tuple(said)

    def needed(self, driver: Driver) -> tuple[str, ...]:
        """The modules that loading the driver loads, as far as they are known: it, and `kvm`."""
        depends = modules.depends_on(self.modules, driver.name)
        return tuple(sorted({driver.name, "kvm", *depends}))

    def installs(self, driver: Driver) -> tuple[installs.Install, ...]:
        """The commands that run instead of loading the driver, or what it needs."""
        return installs.found(self.directives(), self.needed(driver), self.modules)

    def _from_image(self, driver: Driver, inside: Told, default: list[Saying]) -> list[Saying]:
        """What the initramfs makes of it, which wins over all that /etc says."""
        assert self.image is not None
        outside = self._modular(driver, self.directives(), "", "")
        own = self._modular(driver, inside, *self.arguments)
        if not own and any(one.nested is not driver.default for one in outside):
            clause = f"carries {driver.name} and nothing that speaks of its switch, so that the default holds"
            default = [Saying(self.image.path, driver.default, clause)]
        return [*outside, *default, *own]

    def _modular(self, driver: Driver, told: Told, line: str, source: str) -> list[Saying]:
        needed = self.needed(driver)
        return sayings.modular(
            driver, told, line, source, needed=needed, index=self.modules, flags=self.flags
        )

    def taken(self, driver: Driver, argument: cmdline.Argument) -> Nesting | None:
        """What the kernel makes of a value; None for what it refuses (EINVAL)."""
        return sayings.taken(driver, argument, self.flags)


def _image(root: Root, following: bootloader.NextBoot | None, release: str) -> Image | None:
    """What is known of the initramfs of the next boot."""
    if not seen.anything(root):
        return None
    from nestd.host import bootimages  # noqa: PLC0415 -- only where an image was looked into

    path = bootimages.of_next_boot(root, following, release)
    return seen.known(root, path) if path else None


def _index(root: Root, release: str) -> str:
    names = ("modules.dep", "modules.builtin")
    return "\n".join(root.read(f"/lib/modules/{release}/{name}") or "" for name in names)


def _elsewhere(root: Root, release: str) -> tuple[tuple[str, DriverState], ...]:
    """Where each driver is in another kernel than the running one."""
    builtin = root.read(f"/lib/modules/{release}/modules.builtin") or ""
    loadable = root.read(f"/lib/modules/{release}/modules.dep") or ""

    def state(name: str) -> DriverState:
        if modules.has(builtin, name):
            return DriverState.BUILTIN
        return DriverState.UNLOADED if modules.has(loadable, name) else DriverState.MISSING

    return tuple((driver.name, state(driver.name)) for driver in drivers.table(release))


def solve(configuration: Configuration, driver: Driver | None, state: DriverState) -> BootSetting:
    """What the next boot gives, who decides it, and who says otherwise and loses."""
    if driver is None or not driver.switch:
        return BootSetting(Nesting.UNSUPPORTED, "", ())
    if configuration.next_driver(driver, state)[1] is DriverState.MISSING:
        return BootSetting(Nesting.UNSUPPORTED, "", ())
    said = configuration.sayings(driver, state)
    winner = said[-1]
    losers = tuple(
        saying.source
        for saying in said[:-1]
        if saying.nested is not winner.nested and saying.source != KERNEL_DEFAULT
    )
    return BootSetting(winner.nested, winner.source, losers)
