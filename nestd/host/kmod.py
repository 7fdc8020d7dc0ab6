# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernel modules: where one is, what it was given, and loading and unloading it.

Sources: kernel/module/sysfs.c, kernel/module/main.c; modprobe(8), rmmod(8).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nestd.errors import Malformed, ToolFailed
from nestd.host.commands import Commands
from nestd.host.root import Root
from nestd.model import DriverState
from nestd.text import modules

_NAME = re.compile(r"[A-Za-z0-9_]+")


def _folder(module: str) -> str:
    name = modules.normalize(module)
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a module's name: {module!r}")
    return f"/sys/module/{name}"


class Kmod:
    """The modules of the kernel `release` (`uname -r`) that runs. `-` and `_` are the same in names.

    Everything here but load and unload reads files and raises OSError where one is there and cannot be read.
    """

    def __init__(self, root: Root, commands: Commands, release: str) -> None:
        self._root = root
        self._commands = commands
        self._lib = f"/lib/modules/{release}"

    def _listed(self, index: str, module: str) -> bool | None:
        """Whether the index lists the module; None where there is no index."""
        text = self._root.read(f"{self._lib}/{index}")
        return None if text is None else modules.has(text, module)

    def state(self, module: str) -> DriverState:
        """LOADED, BUILTIN, UNLOADED (modprobe would find it) or MISSING.

        A module on its way in or out is UNLOADED. Only a loadable one has `initstate`; before it
        appears the folder looks like a built-in one's, hence the second look into modules.builtin
        and modules.dep. A kernel without modules has neither: there the folder alone decides.
        """
        folder = _folder(module)
        initstate = self._root.read(f"{folder}/initstate")
        if initstate is not None:
            return DriverState.LOADED if initstate.strip() == "live" else DriverState.UNLOADED
        if self._listed("modules.builtin", module):
            return DriverState.BUILTIN
        if self._listed("modules.dep", module):
            return DriverState.UNLOADED
        return DriverState.BUILTIN if self._root.exists(folder) else DriverState.MISSING

    def refcnt(self, module: str) -> int:
        """How many use it: other modules, open /dev/kvm, virtual machines. 0 where there is none.

        A module that is just going shows -1, which is nobody. Raises Malformed.
        """
        text = self._root.read(f"{_folder(module)}/refcnt")
        if text is None:
            return 0
        try:
            return max(0, int(text))
        except ValueError:
            raise Malformed(f"{_folder(module)}/refcnt is no number: {text!r}") from None

    def parameters(self, module: str) -> dict[str, str]:
        """The parameters as the kernel shows them, stripped; those that cannot be read are left out."""
        folder = f"{_folder(module)}/parameters"
        found: dict[str, str] = {}
        for name in self._root.names(folder):
            try:
                text = self._root.read(f"{folder}/{name}")
            except OSError:
                # Write-only (0200), or its getter fails: there is no value to tell.
                continue
            if text is not None:
                found[name] = text.strip()
        return found

    def loaded(self) -> tuple[str, ...]:
        """The names of the loadable modules that are live, sorted."""
        return tuple(
            name
            for name in self._root.names("/sys/module")
            if (self._root.read(f"/sys/module/{name}/initstate") or "").strip() == "live"
        )

    def loading_disabled(self) -> bool:
        """Whether kernel.modules_disabled is set: nothing can be loaded or unloaded until a reboot."""
        return (self._root.read("/proc/sys/kernel/modules_disabled") or "").strip() == "1"

    def require_tools(self) -> None:
        """Raise ToolMissing if modprobe or rmmod is not installed."""
        for tool in ("modprobe", "rmmod"):
            self._commands.find(tool)

    async def load(self, module: str, arguments: Mapping[str, str]) -> None:
        """modprobe `module`, and what it needs, with `arguments`, which beat all configuration.

        Success proves little: modprobe also returns 0, having done nothing, for a module that is
        loaded or built in, and for a parameter that the driver does not know. Read state and
        parameters again. After a failure other modules (`kvm`) may stay loaded. Raises ToolMissing,
        ToolFailed.
        """
        name = _folder(module).rpartition("/")[2]
        await self._run("modprobe", "--", name, *(f"{key}={value}" for key, value in arguments.items()))

    async def unload(self, module: str) -> None:
        """rmmod `module` alone: `modprobe -r` would take `kvm` with it, and its run-time parameters.

        Raises ToolMissing and ToolFailed, which does not tell why: look at state (gone already,
        built in), refcnt (in use) and loading_disabled.
        """
        await self._run("rmmod", "--", _folder(module).rpartition("/")[2])

    async def _run(self, *argv: str) -> None:
        done = await self._commands.run(*argv)
        if done.code != 0:
            raise ToolFailed(argv, done.code, done.err)
