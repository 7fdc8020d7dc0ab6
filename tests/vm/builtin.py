# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd on a kernel whose KVM is built in, with both x86 drivers, on an emulated AMD CPU."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from tests.vm import boot, image, kernel, package, scenes
from tests.vm.machine import Machine
from tests.vm.progress import Progress
from tests.vm.scenes import Scene

_HERE = Path(__file__).parent
_FOLDER = "/usr/lib/nestd-test"
_PROBE = f"python3 -I -S {_FOLDER}/probe_guest.py"
_PROPERTY = "busctl get-property org.nestd1 /org/nestd1 org.nestd1.Manager"
_CALL = "busctl call org.nestd1 /org/nestd1 org.nestd1.Manager"
_VERIFY = "nestctl verify --timeout 200; echo exit $?"
_BOOT_SOURCE = f'{_CALL} GetStatus | grep -o \'"boot-source" s "[^"]*"\''


def _refusal(method: str, option: str) -> str:
    """A call that is refused, as text of bash that shows the error's name, which busctl alone does not."""
    return (
        f"SYSTEMD_LOG_LEVEL=debug {_CALL} {method} 'a{{sv}}' 1 {option} 2>&1"
        " | grep -o 'error-name=[^ ]*\\|error-message=.*' | grep -v =n/a"
    )


AS_IT_COMES = (
    Scene(
        "Both drivers are in the kernel, and Intel's claims to nest on an AMD CPU",
        "grep -m1 -o -w svm /proc/cpuinfo; head /sys/module/kvm_*/parameters/nested; ls /sys/module/kvm_amd",
        ("svm\n", "kvm_amd/parameters/nested <==\n1\n", "kvm_intel/parameters/nested <==\nY\n"),
    ),
    Scene(
        "modprobe takes an argument for it, says nothing, and changes nothing",
        "modprobe kvm_amd nested=0; echo $?; cat /sys/module/kvm_amd/parameters/nested",
        ("0\n1\n",),
    ),
    Scene("nestd chooses by the CPU", "nestctl status", ("kvm_amd", "built in")),
    Scene(
        "The same by busctl",
        f"{_PROPERTY} Extension Driver DriverState Nested NestedAtBoot RebootRequired Obstacle",
        ('s "svm"\ns "kvm_amd"\ns "builtin"\ns "on"\ns "on"\nb false\ns ""',),
    ),
    Scene("The kernel's default decides the next boot", _BOOT_SOURCE, ("default",)),
    Scene("A guest of a few instructions", _PROBE, ("CPUID: yes", "switch it on: yes")),
    Scene(
        "A guest of a guest: its KVM is built in, too", _VERIFY, ("works — a guest of a guest ran", "exit 0")
    ),
    Scene("On: it is so already", f"{_CALL} Enable 'a{{sv}}' 0", ('"changed" b false',)),
    Scene(
        "Off at run time: refused, as nothing but a reboot can do it",
        _refusal("Disable", "scope s runtime"),
        ("org.nestd1.Error.NotSupported", "kvm_amd is built into this kernel", "kvm_amd.nested=0"),
    ),
    Scene(
        "Off at boot: the argument is named, for nestd knows nobody here who writes the command line",
        _refusal("Disable", "scope s boot"),
        ("org.nestd1.Error.BootloaderUnknown", "kvm_amd.nested=0"),
    ),
    Scene("Both: the same, for a person", "! nestctl disable", ("kvm_amd.nested=0",)),
    Scene("No drop-in that would have no effect was left", "! ls /etc/modprobe.d | grep nestd", ()),
    Scene(
        "Nothing has changed", f"{_PROPERTY} Nested NestedAtBoot Policy", ('s "on"\ns "on"\ns "unmanaged"',)
    ),
)

SWITCHED_OFF = (
    Scene(
        "kvm_amd.nested=0 on the command line",
        "cat /proc/cmdline; cat /sys/module/kvm_amd/parameters/nested",
        ("kvm_amd.nested=0", "\n0\n"),
    ),
    Scene(
        "nestd agrees",
        f"{_PROPERTY} Driver DriverState Nested NestedAtBoot RebootRequired",
        ('s "kvm_amd"\ns "builtin"\ns "off"\ns "off"\nb false',),
    ),
    Scene("The command line decides", _BOOT_SOURCE, ("command line",)),
    Scene("The guest has lost it", _PROBE, ("CPUID: no", "switch it on: no")),
    Scene(
        "A guest of its own cannot have one", _VERIFY, ("Nesting: does not work — L1 has no svm", "exit 4")
    ),
    Scene("Off: it is so already", f"{_CALL} Disable 'a{{sv}}' 0", ('"changed" b false',)),
    Scene(
        "On: the argument is named",
        _refusal("Enable", "scope s boot"),
        ("BootloaderUnknown", "kvm_amd.nested=1"),
    ),
    Scene("No unit has failed", "! systemctl --failed --no-legend --plain | grep .", ()),
    Scene("What nestd warned of", "journalctl -q -b -u nestd -p warning", ()),
)


def play(progress: Progress) -> bool:
    """Play the story and show it; whether all was right."""
    progress("building nestd's package")
    deb = package.build()
    own = kernel.ensure(progress)
    plain = image.ensure(progress)
    key = hashlib.sha256(f"{plain.key}\0{own.key}".encode()).hexdigest()
    built = replace(plain, name="builtin", key=key, kernel=own.image, initrd=None)
    with boot.boot(progress, cold=True, built=built) as machine:
        progress(f"installing {deb.name} beside kernel {own.release}")
        _install(machine, own)
        machine.push(_HERE / "probe_guest.py", to=_FOLDER)
        package.install(machine, deb)
        fine = scenes.play(machine, AS_IT_COMES, scenes.to_stdout)
        if fine:
            progress("again, with kvm_amd.nested=0 on the command line")
            machine.restart("kvm_amd.nested=0")
            fine = scenes.play(machine, SWITCHED_OFF, scenes.to_stdout)
    progress("done")
    return fine


def _install(machine: Machine, own: kernel.Kernel) -> None:
    """Put into the machine what an installed kernel has there: its file, and what it has built in."""
    machine.push(*own.lists, to=f"/usr/lib/modules/{own.release}")
    machine.push((f"vmlinuz-{own.release}", own.image.read_bytes()), to="/boot")
    machine.sh("touch /usr/lib/modules/$(uname -r)/modules.order; depmod")
