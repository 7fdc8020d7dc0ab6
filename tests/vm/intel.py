# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd on a real kvm_intel, which Bochs' VMX lets load: Debian 12's image, nestd's package, no QEMU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.vm import bochs, boot, cache, image, package, scenes
from tests.vm.machine import Machine
from tests.vm.problem import VmError
from tests.vm.progress import Progress
from tests.vm.scenes import Scene

_HERE = Path(__file__).parent
_FOLDER = "/usr/lib/nestd-test"
_PROBE = f"python3 -I -S {_FOLDER}/probe_guest.py"
_PROPERTY = "busctl get-property org.nestd1 /org/nestd1 org.nestd1.Manager"
_CALL = "busctl call org.nestd1 /org/nestd1 org.nestd1.Manager"
_PARAMETER = "cat /sys/module/kvm_intel/parameters/nested"
# Seconds of silence of an emulator that does some ten million instructions a second: the boot is the longest.
_SILENCE = 1200.0

STORY = (
    Scene("The CPU", "grep -m1 -o -w vmx /proc/cpuinfo; uname -r", ("vmx",)),
    Scene("udev has loaded its driver", "lsmod | grep ^kvm", ("kvm_intel",)),
    Scene("What nestd says", "nestctl status", ("kvm_intel", "vmx")),
    Scene(
        "The same by busctl",
        f"{_PROPERTY} Extension Driver DriverState Nested NestedAtBoot Obstacle",
        ('s "vmx"', 's "kvm_intel"', 's "loaded"', 's "on"', 's ""'),
    ),
    Scene("A guest of a few instructions, straight on /dev/kvm", _PROBE, ("CPUID: yes", "switch it on: yes")),
    Scene("What an exit costs there", "nestctl measure", ("handled in the kernel", "with kvm_intel")),
    Scene("Off", "nestctl disable", ("off",)),
    Scene(
        "The kernel agrees, and so does the drop-in",
        f"{_PARAMETER}; cat /etc/modprobe.d/zz-nestd.conf",
        ("N\n", "options kvm_intel nested=0"),
    ),
    Scene(
        "nestd agrees",
        f"{_PROPERTY} Nested NestedAtBoot Policy; nestctl status",
        ('s "off"\ns "off"\ns "off"',),
    ),
    Scene("The guest has lost it", _PROBE, ("CPUID: no", "switch it on: no")),
    Scene(
        "By hand, without nestd: the drop-in decides",
        f"modprobe -r kvm_intel; modprobe kvm_intel; {_PARAMETER}",
        ("N\n",),
    ),
    Scene(
        "On again, from a script",
        f"{_CALL} Enable 'a{{sv}}' 0",
        ('"nested" s "on"', '"nested-at-boot" s "on"'),
    ),
    Scene("The kernel agrees", _PARAMETER, ("Y\n",)),
    Scene("nestd agrees", f"{_PROPERTY} Nested NestedAtBoot Policy", ('s "on"\ns "on"\ns "on"',)),
    Scene("The guest has it again", _PROBE, ("CPUID: yes", "switch it on: yes")),
    Scene(
        "While the driver is in use it is left alone",
        "exec 3<>/dev/kvm; ! nestctl disable --runtime",
        ("kvm_intel is in use", "nothing was changed"),
    ),
    Scene("No unit has failed", "! systemctl --failed --no-legend --plain | grep .", ()),
    Scene("What nestd warned of", "journalctl -q -b -u nestd -p warning", ()),
)
# What tests/captures has of this machine, and by what.
_CAPTURE = "bochs-intel"
_TAKE = _HERE.parent / "captures/take.py"


def play(progress: Progress, captures: Path | None = None) -> bool:
    """Play the story in Bochs and show it; whether all was right.

    With `captures`, what the machine shows of its CPU and of KVM is written into that folder.
    """
    bochs.check_host()
    progress("building nestd's package")
    deb = package.build()
    built = image.ensure(progress)
    with cache.workspace() as folder:
        with boot.boot(progress, built=built) as machine:
            progress(f"installing {deb.name}, in QEMU")
            package.install(machine, deb)
            _leave_errand(machine, [scene.text() for scene in STORY])
            disk = machine.switch_off()
            progress("writing the disk and the disc for Bochs")
            bochs.prepare(folder, disk, built.kernel, built.ide_initrd, bochs.Board())
        progress("Bochs boots (minutes)")
        fine = _told(folder, progress, captures)
    progress("done")
    return fine


def _leave_errand(machine: Machine, commands: list[str]) -> None:
    """Put the list of commands and what runs it into the machine, and take away what wants virtio."""
    everything = json.dumps([*commands, f"python3 -I -S {_FOLDER}/{_TAKE.name}"])
    machine.push(
        _HERE / "errand.py", _HERE / "probe_guest.py", _TAKE, ("errand.json", everything.encode()), to=_FOLDER
    )
    machine.write("/etc/systemd/system/nestd-test-errand.service", (_HERE / "errand.service").read_bytes())
    machine.sh(
        "systemctl --quiet disable nestd-test-agent.service nestd-test-shell.service;"
        "systemctl --quiet enable nestd-test-errand.service"
    )


def _told(folder: Path, progress: Progress, captures: Path | None) -> bool:
    fine = True
    said = bochs.lines(folder, _SILENCE)
    try:
        for scene in STORY:
            answer = json.loads(next(said))
            fine &= scenes.tell(scene, answer["code"], answer["said"], scenes.to_stdout)
            progress(f"({answer['seconds']} s of the machine's own time)")
        shown = json.loads(next(said))["said"]
    except (StopIteration, ValueError) as error:
        raise VmError(f"Bochs' machine told something else than its errand: {error!r}") from error
    finally:
        said.close()
    if captures is not None:
        subprocess.run([sys.executable, _TAKE, _CAPTURE, captures], input=shown, text=True, check=True)
    return fine
