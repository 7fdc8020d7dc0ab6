# SPDX-License-Identifier: LGPL-2.1-or-later
"""packaging/ansible's role on a fleet: two real machines, over ssh, from nothing to a wish each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.vm import extras, image
from tests.vm.boot import boot
from tests.vm.controller import Controller, Recap
from tests.vm.hardware import Hardware
from tests.vm.machine import Machine
from tests.vm.progress import Progress
from tests.vm.test_fleet import PROM
from tests.vm.test_pending import wait_until
from tests.vm.test_spine import DROPIN, PARAMETER

pytestmark = pytest.mark.nightly

DEB = "/var/tmp/nestd.deb"
CONF = "/etc/nestd/nestd.conf.d/50-ansible.conf"
# A guest that has not begun to run: to the driver it is one like any other.
HOLDER = "qemu-system-x86_64 -machine q35,accel=kvm -name web -nodefaults -display none -S"


class Fleet:
    """Two machines without nestd, and who drives them."""

    def __init__(self, controller: Controller, one: Machine, two: Machine, deb: Path) -> None:
        self.controller = controller
        self.machines = {"one": one, "two": two}
        self.deb = deb

    def play(
        self, one: dict[str, object], two: dict[str, object], *, check: bool = False, copied: bool = False
    ) -> tuple[Recap, Recap, str]:
        """Play both wishes at once; where somebody knows a status, it is the machine's own truth."""
        copy = {
            "name": "Bring the package, in check mode, too",
            "ansible.builtin.copy": {"src": str(self.deb), "dest": DEB},
            "check_mode": False,
        }
        recaps, said = self.controller.play(
            {"one": one, "two": two}, *([copy] if copied else []), check=check
        )
        for name, recap in recaps.items():
            if "nested" in recap.status:
                assert recap.status["nested"] == self.kernel(name), (name, recap)
        return recaps["one"], recaps["two"], said

    def kernel(self, name: str) -> str:
        """What the machine's own driver says."""
        return {"1": "on", "0": "off"}[self.machines[name].out("cat", PARAMETER)]

    def sh(self, script: str, *, code: int = 0) -> None:
        """Run a script in both, which ends so."""
        for name, machine in self.machines.items():
            done = machine.sh(script, check=False)
            assert done.code == code, (name, done)


@pytest.fixture
def fleet(deb: Path, tmp_path: Path, progress: Progress) -> Iterator[Fleet]:
    built = image.ensure(progress)
    debs = extras.fetch(built, ("openssh-server", "python3-apt"), progress)
    controller = Controller(tmp_path)
    hardware = Hardware(ssh=True)
    # Cold: what would be kept for this hardware would push others' snapshots out of the cache.
    with (
        boot(progress, hardware, cold=True, built=built) as one,
        boot(progress, hardware, cold=True, built=built) as two,
    ):
        controller.add("one", one)
        controller.add("two", two)
        progress("installing sshd in both")
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda machine: extras.install(machine, debs), (one, two)))
        yield Fleet(controller, one, two, deb)


def test_two_machines_get_what_each_is_to_have(fleet: Fleet) -> None:
    textfile = {"Export": {"PrometheusTextfile": PROM}}
    package: dict[str, object] = {"package": DEB}
    off: dict[str, object] = {"nesting": "disabled"}
    on: dict[str, object] = {"nesting": "enabled"}
    later: dict[str, object] = {"install": False}
    fleet.sh(f"mkdir -p {Path(PROM).parent}")

    # Nothing is there yet, and in check mode nothing comes but the file of the package, which is looked into.
    one, two, _ = fleet.play({**package, **off, "conf": textfile}, {**package, **on}, check=True, copied=True)
    assert (one.failed, two.failed) == (False, False) and one.changed > two.changed == 2
    fleet.sh(f"! dpkg --status nestd 2>/dev/null && [ ! -e {CONF} ] && [ ! -e {DROPIN} ]")

    # Installed and configured, and left as it was.
    one, two, _ = fleet.play({**package, "conf": textfile}, package)
    assert (one.failed, two.failed) == (False, False) and one.changed > two.changed == 1
    assert (one.status["nested"], two.status["nested"]) == ("on", "on")
    assert (one.status["policy"], two.status["policy"]) == ("unmanaged", "unmanaged")
    wait_until(fleet.machines["one"], f"$(grep -cx 'nestd_nested 1' {PROM}) == 1")

    # Each its own wish: in check mode it is only said, then done, then there is nothing left to do.
    off, on = {**later, **off, "conf": textfile}, {**later, **on}
    one, two, said = fleet.play(off, on, check=True)
    assert (one.changed, two.changed) == (1, 1) and "unload kvm_amd" in said
    assert (one.status["nested"], two.status["nested"]) == ("on", "on")
    fleet.sh(f"[ ! -e {DROPIN} ]")
    one, two, _ = fleet.play(off, on)
    assert (one.changed, two.changed) == (1, 1)
    assert (one.status["nested"], two.status["nested"]) == ("off", "on")
    assert (one.status["nested-at-boot"], two.status["nested-at-boot"]) == ("off", "on")
    wait_until(fleet.machines["one"], f"$(grep -cx 'nestd_nested 0' {PROM}) == 1")
    one, two, _ = fleet.play({**off, **package, "install": True}, {**on, **package, "install": True})
    assert (one.changed, two.changed) == (0, 0)
    assert (one.status["nested"], two.status["nested"]) == ("off", "on")

    # Both are to change; a guest on the second is in the way, which is nothing to the first.
    with fleet.machines["two"].background(["sh", "-c", f"exec {HOLDER}"]):
        wait_until(fleet.machines["two"], "$(cat /sys/module/kvm_amd/refcnt) -gt 0")
        one, two, said = fleet.play({**on, "conf": textfile}, {**later, "nesting": "disabled"})
    assert (one.changed, one.failed, one.status["nested"]) == (1, False, "on")
    assert (two.changed, two.failed, two.status) == (0, True, {})
    assert "fatal: [two]" in said and "fatal: [one]" not in said
    assert "InUse" in said and "kvm_amd is in use" in said and "qemu-system-x86" in said
    assert (fleet.kernel("one"), fleet.kernel("two")) == ("on", "on")
