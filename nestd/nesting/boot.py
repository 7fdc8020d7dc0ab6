# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the next boot will give: the merged configuration, solved for one driver's switch.

For a module: the kernel's default, then every `options` line of modprobe.d in kmod's order
(later wins), then the kernel command line, which modprobe puts last; unless something keeps the
driver from being loaded at all. For a driver that is built in, modprobe.d does not count. The
command line is the one that the boot loader will give, or the running kernel's if that cannot be told.
What an initramfs carries is not looked at here: nestd/nesting/bootchecks.py tells of it.
"""

# No postponed annotations here: see nestd/model.py.

from collections.abc import Iterator
from typing import NamedTuple

from nestd.host import bootloader
from nestd.host.root import Root
from nestd.model import BootSetting, Driver, DriverState, Nesting
from nestd.nesting import drivers, dropin, installs
from nestd.text import cmdline, modprobe, modules, parameter

COMMAND_LINE = "kernel command line"
KERNEL_DEFAULT = "kernel default"
# Their switch is an int, as long as the kernel does not show Y or N (arch/x86/kvm/svm/svm.c, arch/s390/kvm).
_INT_SWITCHES = frozenset({"kvm_amd", "kvm"})
_INITCALLS = {"kvm_intel": {"vmx_init", "vt_init"}, "kvm_amd": {"svm_init"}}


class Saying(NamedTuple):
    """One place that says something about the switch, and what it does, as a clause."""

    source: str
    nested: Nesting
    clause: str


class Configuration(NamedTuple):
    """What modprobe and the kernel read at boot: files in their order, and the command line.

    `command_line` is the running kernel's, `release` its `uname -r`. `modules` is modules.dep and
    modules.builtin, read only if an `install` line is there. `elsewhere` tells where the drivers are in the
    next kernel if that is another one. `flags` are the drivers whose switch shows itself as a bool.
    """

    files: tuple[tuple[str, str], ...]
    command_line: str
    next_boot: bootloader.NextBoot | None = None
    release: str = ""
    modules: str = ""
    elsewhere: tuple[tuple[str, DriverState], ...] = ()
    flags: frozenset[str] = frozenset()

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
        return cls(
            tuple(files),
            root.read("/proc/cmdline") or "",
            following,
            release,
            _index(root, release) if any("install" in content for _, content in files) else "",
            _elsewhere(root, other) if other else (),
            frozenset(
                name
                for name in _INT_SWITCHES
                if (root.read(f"/sys/module/{name}/parameters/nested") or "").strip() in {"Y", "N"}
            ),
        )

    @property
    def dropin(self) -> str | None:
        """The text of nestd's own drop-in; None if there is none."""
        return dict(self.files).get(dropin.PATH)

    def with_dropin(self, content: str) -> "Configuration":
        """The same with nestd's drop-in saying `content`, in its place in the order."""
        others = {path: text for path, text in self.files if path != dropin.PATH}
        others[dropin.PATH] = content
        return self._replace(files=tuple(sorted(others.items(), key=lambda item: modprobe.order(item[0]))))

    @property
    def arguments(self) -> tuple[str, str]:
        """The command line of the next boot as far as it can be told, and where it is written."""
        if self.next_boot is None or self.next_boot.doubt:
            return self.command_line, COMMAND_LINE
        return self.next_boot.command_line, self.next_boot.source

    def directives(self) -> Iterator[tuple[str, modprobe.Directive]]:
        """Every line of modprobe.d, in order, with its file and line."""
        for path, content in self.files:
            for directive in modprobe.parse(content):
                yield f"{path}:{directive.line}", directive

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
            for one in cmdline.parse(line):
                # A value that it does not take, the kernel leaves alone.
                if _is(one.name, f"{driver.name}.{driver.switch}") and (nested := self._taken(driver, one)):
                    said.append(_setting(source, nested, one, driver))
        else:
            said += self._modular(driver, line, source)
        initcalls = _INITCALLS.get(driver.name, set()) & set(_listed(line, "initcall_blacklist", every=True))
        if initcalls:
            clause = f"says initcall_blacklist={','.join(initcalls)}, so that {driver.name} does not start"
            said.append(Saying(source, Nesting.OFF, clause))
        return tuple(said)

    def needed(self, driver: Driver) -> tuple[str, ...]:
        """The modules that loading the driver loads, as far as they are known: it, and `kvm`."""
        depends = modules.depends_on(self.modules, driver.name)
        return tuple(sorted({driver.name, "kvm", *depends}))

    def installs(self, driver: Driver) -> tuple[installs.Install, ...]:
        """The commands that run instead of loading the driver, or what it needs."""
        return installs.found(tuple(self.directives()), self.needed(driver), self.modules)

    def _modular(self, driver: Driver, line: str, source: str) -> list[Saying]:
        """What modprobe.d and modprobe make of it; behind that, what keeps the driver from being loaded."""
        said: list[Saying] = []
        refused: list[Saying] = []
        given = [
            (where, directive.arguments)
            for where, directive in (
                *self.directives(),
                *((source, one) for one in modprobe.command_line(line)),
            )
            if directive.command == "options" and directive.module == driver.name
        ]
        for install in self.installs(driver):
            if install.never:
                told = f"says install {install.module} {install.command}, so that {driver.name} does not load"
                refused.append(Saying(install.source, Nesting.OFF, told))
            elif install.module == driver.name:
                given = [(install.source, install.weak), *given, (install.source, install.arguments)]
        for where, words in given:
            for one in map(cmdline.argument, words):
                if _is(one.name, driver.switch):
                    nested = self._taken(driver, one)
                    (refused if nested is None else said).append(_setting(where, nested, one, driver))
        return said + refused + forbidden(line, source, self.needed(driver))

    def _taken(self, driver: Driver, argument: cmdline.Argument) -> Nesting | None:
        """What the kernel makes of a value; None for what it refuses (EINVAL)."""
        if driver.switch != "nested":
            return drivers.switch_of(driver, argument.value or "")
        if driver.name in _INT_SWITCHES - self.flags:
            number = parameter.integer(argument.value)
            return None if number is None else Nesting.ON if number else Nesting.OFF
        flag = parameter.boolean(argument.value)
        return None if flag is None else Nesting.ON if flag else Nesting.OFF


def _setting(source: str, nested: Nesting | None, argument: cmdline.Argument, driver: Driver) -> Saying:
    words = argument.name if argument.value is None else f"{argument.name}={argument.value}"
    if nested is None:
        refused = f"says {words}, a value that the kernel refuses, so that {driver.name} does not load"
        return Saying(source, Nesting.OFF, refused)
    return Saying(source, nested, f"says {words}")


def _is(name: str, wanted: str) -> bool:
    return modules.normalize(name) == modules.normalize(wanted)


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
