# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine as a tree of files, built by saying what it is.

    Tree(tmp_path).amd().module("kvm_amd", nested="1").dropin("x.conf", "options kvm_amd nested=0\n")

What a kernel would know and no file says (a module's default parameters, the CPU that it wants) is
under /.kernel, where the fake tools (tests/support/fakes.py) find it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Self

from nestd.host.root import Root

RELEASE = "6.1.0-42-amd64"
CAPTURES = Path(__file__).resolve().parent.parent / "captures"

COMMON_FLAGS = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr sse sse2 syscall nx lm"
)
INTEL_FLAGS = f"{COMMON_FLAGS} vmx ssse3 sse4_1 sse4_2 ept vpid"
AMD_FLAGS = f"{COMMON_FLAGS} svm ssse3 npt lbrv svm_lock nrip_save"


def cpuinfo(vendor: str, flags: str, cpus: int = 2) -> str:
    """/proc/cpuinfo of an x86 machine; every CPU has the same flags."""
    return "".join(
        f"processor\t: {number}\nvendor_id\t: {vendor}\ncpu family\t: 6\nmodel\t\t: 158\n"
        f"flags\t\t: {flags}\nbugs\t\t: spectre_v1\n\n"
        for number in range(cpus)
    )


class Tree:
    """A machine below `top`: a kernel with module support and nothing loaded, until something is said."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = Root(str(top))
        self.write("/proc/modules", "").write(
            "/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro quiet\n"
        )
        self.write("/proc/sys/kernel/modules_disabled", "0\n")
        self.write("/proc/sys/kernel/osrelease", RELEASE + "\n")
        self.write(f"/lib/modules/{RELEASE}/modules.builtin", "kernel/fs/ext4/ext4.ko\n")
        self._index()

    def path(self, absolute: str) -> Path:
        """Where `absolute` is below the tree."""
        return Path(self.root.path(absolute))

    def write(self, absolute: str, text: str) -> Self:
        path = self.path(absolute)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return self

    def replace(self, absolute: str, text: str) -> Self:
        """Write a file that somebody may read just now: whole, as the kernel's are."""
        new = f"{absolute}.new"
        self.write(new, text).path(new).replace(self.path(absolute))
        return self

    def read(self, absolute: str) -> str:
        """The text; the file must be there."""
        text = self.root.read(absolute)
        assert text is not None, absolute
        return text

    def gone(self, absolute: str) -> Self:
        """Take away a file or a folder."""
        path = self.path(absolute)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        return self

    # The CPU, and the modules that a distribution's kernel has for it.

    def amd(self, flags: str = AMD_FLAGS) -> Self:
        return self.write("/proc/cpuinfo", cpuinfo("AuthenticAMD", flags)).x86()

    def intel(self, flags: str = INTEL_FLAGS) -> Self:
        return self.write("/proc/cpuinfo", cpuinfo("GenuineIntel", flags)).x86()

    def x86(self) -> Self:
        """A distribution's kernel: both drivers as modules."""
        self.loadable("kvm", ignore_msrs="N", halt_poll_ns="200000")
        self.loadable("kvm_amd", needs=("kvm",), extension="svm", nested="1", npt="Y", avic="N")
        return self.loadable("kvm_intel", needs=("kvm",), extension="vmx", nested="Y", ept="Y", vpid="Y")

    def pvm(self) -> Self:
        """A captured virtual machine: kvm_pvm built in, no vmx or svm, no module support."""
        return self.captured("pvm").without_module_support()

    def captured(self, name: str) -> Self:
        """What tests/captures has of a real machine: CPU, command line, KVM's modules, modprobe.d."""
        self.write("/proc/cpuinfo", (CAPTURES / f"cpuinfo-{name}").read_text())
        self.write("/proc/cmdline", (CAPTURES / f"cmdline-{name}").read_text())
        for line in (CAPTURES / f"sys-module-{name}").read_text().splitlines():
            file, _, value = line.partition("=")
            self.write(f"/sys/module/{file}", value + "\n")
        if (index := CAPTURES / f"modules.dep-{name}").exists():
            self.write(f"/lib/modules/{RELEASE}/modules.dep", index.read_text())
        if (files := CAPTURES / f"modprobe.d-{name}").exists():
            # "-- /path", then its lines without comments.
            for file in files.read_text().removeprefix("-- ").split("\n-- "):
                path, _, text = file.partition("\n")
                self.write(path, text + "\n")
        return self

    # Modules. Parameters are what /sys/module/NAME/parameters shows.

    def loadable(
        self,
        name: str,
        *,
        needs: tuple[str, ...] = (),
        extension: str = "",
        signer: str = "A Distribution",
        **defaults: str,
    ) -> Self:
        """modprobe finds it; `defaults` are its parameters when nobody says anything."""
        module = {"needs": needs, "extension": extension, "signer": signer, "defaults": defaults}
        return self.write(f"/.kernel/modules/{name}", json.dumps(module))._index()

    def without(self, name: str) -> Self:
        """The module is not installed."""
        return self.gone(f"/.kernel/modules/{name}")._index()

    def module(self, name: str, *, refcnt: int = 0, initstate: str = "live", **parameters: str) -> Self:
        """It is loaded, and so is what it needs."""
        known = self._known(name)
        for needed in known["needs"]:
            if not self.root.exists(f"/sys/module/{needed}"):
                self.module(needed)
            if self.root.exists(f"/sys/module/{needed}/refcnt"):
                count = int(self.read(f"/sys/module/{needed}/refcnt")) + 1
                self.write(f"/sys/module/{needed}/refcnt", f"{count}\n")
                self.path(f"/sys/module/{needed}/holders/{name}").mkdir(parents=True)
        self.write(f"/sys/module/{name}/initstate", initstate + "\n")
        self.write(f"/sys/module/{name}/refcnt", f"{refcnt}\n")
        self.write(f"/sys/module/{name}/coresize", "225280\n").write(f"/sys/module/{name}/taint", "\n")
        return self._parameters(name, {**known["defaults"], **parameters})

    def builtin(self, name: str, **parameters: str) -> Self:
        """It is part of the kernel; `parameters` are added to what `loadable` gave."""
        known = self._known(name)
        if self.root.exists(f"/.kernel/modules/{name}"):
            self.without(name)
        if (index := self.root.read(f"/lib/modules/{RELEASE}/modules.builtin")) is not None:
            line = f"kernel/arch/x86/kvm/{name.replace('_', '-')}.ko\n"
            self.write(f"/lib/modules/{RELEASE}/modules.builtin", index + line)
        self.write(f"/sys/module/{name}/uevent", "")
        return self._parameters(name, {**known["defaults"], **parameters})

    def without_module_support(self) -> Self:
        """The kernel has no CONFIG_MODULES."""
        for path in ("/proc/modules", "/lib/modules", "/proc/sys/kernel/modules_disabled"):
            self.gone(path)
        return self

    def modules_disabled(self) -> Self:
        return self.write("/proc/sys/kernel/modules_disabled", "1\n")

    # Configuration.

    def cmdline(self, text: str) -> Self:
        return self.write("/proc/cmdline", text + "\n")

    def dropin(self, name: str, text: str, folder: str = "/etc/modprobe.d") -> Self:
        return self.write(f"{folder}/{name}", text)

    # Processes.

    def process(self, pid: int, comm: str, *links: str, cgroup: str = "0::/\n") -> Self:
        """`links` are what its file descriptors say, from 0 on."""
        self.write(f"/proc/{pid}/comm", comm + "\n").write(f"/proc/{pid}/cgroup", cgroup)
        self.path(f"/proc/{pid}/fd").mkdir()
        for number, link in enumerate(links):
            self.path(f"/proc/{pid}/fd/{number}").symlink_to(link)
        return self

    def _known(self, name: str) -> dict[str, dict[str, str]]:
        text = self.root.read(f"/.kernel/modules/{name}")
        known: dict[str, dict[str, str]] = json.loads(text) if text else {"needs": {}, "defaults": {}}
        return known

    def _parameters(self, name: str, parameters: dict[str, str]) -> Self:
        for key, value in parameters.items():
            self.write(f"/sys/module/{name}/parameters/{key}", value + "\n")
        return self

    def _index(self) -> Self:
        def file(name: str) -> str:
            return f"kernel/arch/x86/kvm/{name.replace('_', '-')}.ko.xz"

        lines = (
            f"{file(name)}: {' '.join(map(file, self._known(name)['needs']))}".rstrip(" ")
            for name in self.root.names("/.kernel/modules")
        )
        return self.write(f"/lib/modules/{RELEASE}/modules.dep", "".join(line + "\n" for line in lines))
