# SPDX-License-Identifier: LGPL-2.1-or-later
"""The spine's main points once more on Debian 13: kernel 6.12, systemd 257, kmod 34, polkit 126."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import image, package, sources
from tests.vm import test_proof as proof
from tests.vm import test_service as service
from tests.vm import test_spine as spine
from tests.vm.boot import boot
from tests.vm.machine import Machine
from tests.vm.progress import Progress
from tests.vm.test_service import CONFIG, KEEP, of_pid_1, said, shown

# Every module that KVM needs, taken out of its xz and put into a zst.
_AS_ZSTANDARD = """
import ctypes, lzma, pathlib, subprocess
library = ctypes.CDLL("libzstd.so.1")
library.ZSTD_compress.restype = library.ZSTD_compressBound.restype = ctypes.c_size_t
number = ctypes.c_size_t
library.ZSTD_compress.argtypes = [ctypes.c_char_p, number, ctypes.c_char_p, number, ctypes.c_int]
library.ZSTD_compressBound.argtypes = [number]
listed = subprocess.check_output(["modprobe", "--show-depends", "kvm_amd"], text=True).splitlines()
for path in [pathlib.Path(line.split()[1]) for line in listed if line.startswith("insmod")]:
    data = lzma.decompress(path.read_bytes())
    room = ctypes.create_string_buffer(library.ZSTD_compressBound(len(data)))
    size = library.ZSTD_compress(room, len(room), data, len(data), 3)
    path.with_suffix(".zst").write_bytes(room.raw[:size])
    path.unlink()
subprocess.check_call(["depmod"])
"""


@pytest.fixture(scope="module")
def own_deb(tmp_path_factory: pytest.TempPathFactory, progress: Progress) -> Path:
    """nestd's package for Debian 13's systemd."""
    progress("building nestd's package for Debian 13")
    return package.build("--systemd", "257", "--into", tmp_path_factory.mktemp("debian13"))


@pytest.fixture(scope="module")
def trixie(own_deb: Path, progress: Progress) -> Iterator[Machine]:
    """A machine with Debian 13 and nestd, which lives as long as this module's tests."""
    with boot(progress, built=image.ensure(progress, sources.TRIXIE)) as machine:
        progress(f"installing {own_deb.name} in Debian 13")
        package.install(machine, own_deb)
        machine.save(package.INSTALLED)
        yield machine


@pytest.fixture
def machine(trixie: Machine) -> Machine:
    """A machine in which nestd was just installed from its package, and runs."""
    trixie.load(package.INSTALLED)
    return trixie


def test_this_is_debian_13(machine: Machine) -> None:
    """What the other tests stand on, and what the numbers above claim."""
    assert machine.out("uname", "-r").startswith("6.12.")
    assert machine.out("systemctl", "--version").startswith("systemd 257")
    assert machine.out("modprobe", "--version").startswith("kmod version 34")
    assert machine.out("pkaction", "--version") == "pkaction version 126"
    assert machine.out("python3", "--version").startswith("Python 3.13.")
    assert machine.out("systemctl", "is-system-running") == "running"


def test_disable_and_enable_are_real(machine: Machine) -> None:
    spine.test_disable_and_enable_are_real(machine)


def test_it_holds_after_a_reboot(machine: Machine) -> None:
    spine.test_it_holds_after_a_reboot(machine)


def test_without_authorization_nothing_changes(machine: Machine) -> None:
    spine.test_without_authorization_nothing_changes(machine, "no")


def test_a_guest_gets_the_extension(machine: Machine) -> None:
    spine.test_a_guest_gets_the_extension(machine, "host")


def test_nesting_is_proved(machine: Machine) -> None:
    """With modules that are compressed, which Debian 12's are not: the probe guest inserts them itself."""
    driver = machine.out("modinfo", "--filename", "kvm_amd")
    assert driver.endswith(".ko.xz")
    told = proof.verify(machine)
    assert told["works"] is True, told


@pytest.mark.nightly
def test_nesting_is_proved_with_zstandard(machine: Machine) -> None:
    """As Fedora and Arch compress them."""
    machine.run(["python3", "-c", _AS_ZSTANDARD])
    assert machine.out("modinfo", "--filename", "kvm_amd").endswith(".ko.zst")
    told = proof.verify(machine)
    assert told["works"] is True, told


@pytest.mark.nightly
def test_what_autopkgtest_runs(machine: Machine) -> None:
    service.test_what_autopkgtest_runs(machine)


@pytest.mark.nightly
def test_an_upgrade_keeps_all_that_was_set(machine: Machine, tmp_path: Path, progress: Progress) -> None:
    progress("building nestd's package for Debian 13, a newer version")
    newer = package.build("--systemd", "257", "--version", "99.0", "--into", tmp_path)
    service.test_an_upgrade_keeps_all_that_was_set(machine, newer, "enable")


def test_removal_keeps_and_purge_takes_back(machine: Machine) -> None:
    service.test_removal_keeps_and_purge_takes_back(machine, works=True)


def test_a_reload_is_over_when_systemctl_returns(machine: Machine) -> None:
    """Type=notify-reload: systemd sends SIGHUP, and waits until nestd says that it has read it all."""
    assert shown(machine, "Type") == "notify-reload"
    pid = shown(machine, "MainPID")
    for enforce in ("when-idle", "no"):
        machine.write(CONFIG, f"[Nesting]\nEnforce={enforce}\n")
        machine.sh("systemctl reload nestd.service")
        assert said(machine, f"The configuration was read again: Enforce={enforce}, Loader=auto.")
    machine.sh("for _ in $(seq 20); do systemctl kill --signal=HUP --kill-whom=main nestd.service; done")
    machine.write(CONFIG, KEEP)
    machine.sh("systemctl reload nestd.service; systemctl reload nestd.service")
    assert (shown(machine, "MainPID"), shown(machine, "ActiveState")) == (pid, "active")
    assert (shown(machine, "Result"), of_pid_1(machine)) == ("success", "")


def test_systemds_own_machines_wait_for_nestd(machine: Machine) -> None:
    """Not only machines.target, before which they are started. This systemd has no systemd-vmspawn@ yet."""
    for unit in ("systemd-nspawn@x.service", "machines.target"):
        assert shown(machine, "LoadState", unit) == "loaded"
        assert "nestd.service" in shown(machine, "After", unit).split()
