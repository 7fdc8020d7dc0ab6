# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd as systemd's service: boot order, reload, enablement, upgrade and purge, the sandbox. All real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.vm import package
from tests.vm.machine import Machine
from tests.vm.progress import Progress
from tests.vm.test_pending import journal, wait_until
from tests.vm.test_spine import DROPIN, GUEST, PARAMETER, assert_truth, call, prop

SMOKE = Path(__file__).parents[2] / "packaging/debian/tests/smoke"
DRIFT = "1fa29f222c364214b60f3c07ba53243b"
CONFIG = "/etc/nestd/nestd.conf"
KEEP = "[Nesting]\nEnforce=when-idle\n"
UNIT = "nestd.service"

# What a hypervisor's daemon sees of the driver when it starts.
LIBVIRTD = f"""[Unit]
Description=Not libvirt
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'cat {PARAMETER} > /run/libvirtd-saw || echo nothing > /run/libvirtd-saw'
[Install]
WantedBy=multi-user.target
"""
# udev comes to the CPU, whose driver it loads, only when nestd has long been started.
SLOW = """#!/bin/sh
n=0
until [ -L /run/systemd/units/invocation:nestd.service ] || [ $n -ge 120 ]; do sleep 1; n=$((n + 1)); done
sleep 2
"""
RULE = 'ACTION=="add", SUBSYSTEM=="cpu", PROGRAM="/usr/local/lib/slow"\n'


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory, progress: Progress) -> Path:
    """The same package, of a higher version."""
    progress("building nestd's package, a newer version")
    return package.build("--version", "99.0", "--into", tmp_path_factory.mktemp("newer"))


def shown(machine: Machine, name: str, unit: str = UNIT) -> str:
    """A property of a unit."""
    return machine.out("systemctl", "show", "-P", name, unit)


def said(machine: Machine, text: str) -> bool:
    """Whether nestd has said that in this boot."""
    return text in machine.out("journalctl", "-b", "-u", UNIT, "-o", "cat", "--no-pager")


def of_pid_1(machine: Machine) -> str:
    """What systemd itself has said of nestd's unit."""
    words = machine.out("journalctl", "-b", "_PID=1", "-o", "cat", "--no-pager", "--priority=warning")
    return "\n".join(line for line in words.splitlines() if UNIT in line or "cycle" in line)


def test_at_boot_the_driver_is_what_was_told_before_a_guest_can_have_it(machine: Machine) -> None:
    """A later file wins at boot, udev is slow: nestd waits, says so, puts it back; then libvirtd starts."""
    machine.sh("nestctl disable")
    machine.write("/etc/modprobe.d/zzz.conf", "options kvm_amd nested=1\n")
    machine.write(CONFIG, KEEP)
    machine.write("/etc/systemd/system/libvirtd.service", LIBVIRTD)
    machine.write("/usr/local/lib/slow", SLOW, mode=0o755)
    machine.write("/etc/udev/rules.d/00-slow.rules", RULE)
    machine.sh("systemctl daemon-reload; systemctl enable libvirtd.service")
    machine.reboot()

    assert machine.text("/run/libvirtd-saw").strip() in ("0", "N")
    assert prop(machine, "Nested") == "off"
    [drift] = journal(machine, DRIFT)
    assert (drift["NESTD_EXPECTED"], drift["NESTD_ACTUAL"]) == ("off", "on")
    assert "it came up so in this boot, as /etc/modprobe.d/zzz.conf:1 gives on" in drift["MESSAGE"]
    ready = int(shown(machine, "ActiveEnterTimestampMonotonic"))
    assert 0 < ready <= int(shown(machine, "ExecMainStartTimestampMonotonic", "libvirtd.service"))
    assert ready <= int(shown(machine, "ActiveEnterTimestampMonotonic", "machines.target") or ready)
    assert UNIT in machine.out("systemd-analyze", "--no-pager", "critical-chain", "libvirtd.service")
    for unit in ("systemd-nspawn@x.service", "machines.target", "libvirtd.service", "virtqemud.service"):
        loaded = shown(machine, "LoadState", unit) == "loaded"
        assert not loaded or UNIT in shown(machine, "After", unit).split(), unit
    # No ordering cycle, no word that this systemd does not know.
    assert of_pid_1(machine) == ""
    assert (
        machine.sh("systemd-analyze verify --man=no default.target 2>&1 | grep -i nestd || true").stdout == ""
    )


def test_a_reload_disturbs_nobody(machine: Machine) -> None:
    """While a guest runs, and with a configuration that is partly broken."""
    machine.sh(f"nestctl launch demo --memory 192M {GUEST}", timeout=240)
    before = json.loads(machine.out("nestctl", "--json", "show", "demo"))
    pid = shown(machine, "MainPID")
    match = "--match=type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.nestd1'"
    with machine.background(["sh", "-c", f'exec busctl monitor "{match}" 2>&1']) as listener:
        listener.wait_for("Monitoring", 30)
        machine.write(CONFIG, f"{KEEP}Enfroce=no\n")
        machine.sh("systemctl reload nestd.service")
        wait_until(machine, f"$(journalctl -q -b -u {UNIT} -g 'configuration was read again') != ''")
        assert said(machine, f"{CONFIG}:3: there is no Enfroce= in [Nesting]")
        assert said(machine, "Enforce=when-idle, Loader=auto")
        machine.sh(f"for _ in $(seq 20); do systemctl kill --signal=HUP --kill-who=main {UNIT}; done")
        assert json.loads(machine.out("nestctl", "--json", "show", "demo")) == before
        assert "NameOwnerChanged" not in listener.wait_for("Monitoring", 5)
    assert (shown(machine, "MainPID"), shown(machine, "ActiveState")) == (pid, "active")
    # It counts: what somebody else does to the driver is put back now.
    machine.sh("nestctl kill demo; nestctl disable; modprobe -r kvm_amd; modprobe kvm_amd nested=1")
    wait_until(machine, f"$(cat {PARAMETER} 2>/dev/null) == 0")
    assert of_pid_1(machine) == ""


def test_enable_disable_preset_and_activation(machine: Machine) -> None:
    def enabled() -> str:
        return machine.run(["systemctl", "is-enabled", UNIT], check=False).stdout.strip()

    assert enabled() == "enabled"
    machine.sh(f"systemctl disable {UNIT}")
    assert enabled() == "disabled"
    machine.write("/etc/systemd/system-preset/00-x.preset", "enable nestd.service\n")
    machine.sh(f"systemctl preset {UNIT}")
    assert enabled() == "enabled"
    machine.write("/etc/systemd/system-preset/00-x.preset", "disable nestd.service\n")
    machine.sh(f"systemctl preset {UNIT}")
    assert enabled() == "disabled"
    # Not enabled and not running, it comes when it is called; masked, it does not.
    machine.sh(f"systemctl stop {UNIT}")
    assert prop(machine, "Nested") == "on"
    assert shown(machine, "ActiveState") == "active"
    machine.sh(f"systemctl mask --now {UNIT}")
    refused = call(machine, "GetStatus", check=False)
    assert refused.code != 0 and "masked" in refused.stderr, refused.stderr
    machine.sh(f"systemctl unmask {UNIT}")
    assert prop(machine, "Nested") == "on"


@pytest.mark.parametrize("word", ["enable", pytest.param("disable", marks=pytest.mark.nightly)])
def test_an_upgrade_keeps_all_that_was_set(machine: Machine, newer: Path, word: str) -> None:
    machine.sh("nestctl disable; nestctl enable --runtime")
    machine.sh(f"systemctl {word} {UNIT}")
    machine.write(CONFIG, KEEP)
    machine.write("/var/lib/nestd/undo", "false\n")
    machine.sh(f"nestctl launch demo --memory 192M {GUEST}", timeout=240)
    kept = f"cat {DROPIN} {CONFIG} /var/lib/nestd/undo; systemctl is-enabled {UNIT} || true"
    before = (machine.sh(kept).stdout, json.loads(machine.out("nestctl", "--json", "show", "demo")))
    pid = shown(machine, "MainPID")

    folder = machine.push(newer)
    machine.sh(f"dpkg --install {folder}/{newer.name}", timeout=400)
    assert machine.out("dpkg-query", "-W", "-f", "${Version}", "nestd") == "99.0"
    assert shown(machine, "ActiveState") == "active" and shown(machine, "MainPID") != pid
    assert before == (machine.sh(kept).stdout, json.loads(machine.out("nestctl", "--json", "show", "demo")))
    # What was told for this boot alone is still known: it is no drift.
    assert_truth(machine, "on", "off")
    assert json.loads(machine.out("nestctl", "--json", "status"))["drift"] == ""
    assert machine.out("systemctl", "is-system-running") == "running"


@pytest.mark.parametrize("works", [True, False])
def test_removal_keeps_and_purge_takes_back(machine: Machine, works: bool) -> None:
    undo = "cp /etc/motd /etc/was-undone; ls /etc/modprobe.d/zz-nestd.conf || echo the drop-in is gone\n"
    machine.sh("nestctl disable")
    machine.write("/etc/motd", "x")
    machine.write("/var/lib/nestd/undo", undo if works else f"{undo}echo grub is broken >&2\nexit 3\n")
    machine.sh("dpkg --remove nestd")
    assert machine.sh(f"cat {DROPIN} /var/lib/nestd/undo").stdout.endswith(
        machine.text("/var/lib/nestd/undo")
    )
    assert machine.sh("test -e /etc/was-undone", check=False).code == 1

    purged = machine.sh("dpkg --purge nestd 2>&1").stdout
    assert machine.text("/etc/was-undone") == "x"
    assert "the drop-in is gone" in purged
    assert machine.sh("dpkg -s nestd", check=False).code == 1
    left = machine.sh(f"ls -d {DROPIN} /var/lib/nestd /run/nestd /etc/nestd 2>/dev/null", check=False).stdout
    if works:
        assert left.split() == []
    else:
        assert left.split() == ["/var/lib/nestd"]
        for word in ("grub is broken", "/var/lib/nestd/undo", "rm -r /var/lib/nestd"):
            assert word in purged
        assert machine.text("/var/lib/nestd/undo").endswith("exit 3\n")


def test_what_autopkgtest_runs(machine: Machine) -> None:
    """packaging/debian/tests, on the real machine that it asks for."""
    folder = machine.push(SMOKE)
    done = machine.sh(f"sh {folder}/{SMOKE.name}", timeout=300)
    assert "it is quiet, and comes when it is called" in done.stdout, done


def test_what_the_sandbox_lets_through(machine: Machine) -> None:
    """The files that it writes and reads for the next boot, and nothing beside them."""
    machine.sh("mkdir -p /etc/kernel/postinst.d /etc/kernel/install.d /srv/esp/loader/entries")
    entry = "title x\nlinux /vmlinuz\noptions root=/dev/vda kvm_amd.nested=0\n"
    machine.write("/srv/esp/loader/entries/x.conf", entry)
    machine.write("/srv/esp/loader/loader.conf", "default x.conf\n")
    # An EFI system partition as systemd-gpt-auto-generator mounts it: when somebody looks, and not for long.
    machine.sh("mkdir /efi")
    machine.write(
        "/etc/systemd/system/efi.mount", "[Mount]\nWhat=/srv/esp\nWhere=/efi\nType=none\nOptions=bind\n"
    )
    machine.write("/etc/systemd/system/efi.automount", "[Automount]\nWhere=/efi\nTimeoutIdleSec=3s\n")
    machine.sh(f"systemctl daemon-reload; systemctl start efi.automount; systemctl restart {UNIT}")
    status = json.loads(machine.out("nestctl", "--json", "status"))
    assert status["boot-source"] == "/efi/loader/entries/x.conf:3"
    wait_until(machine, "$(systemctl is-active efi.mount) != active")

    inside = ["nsenter", "--mount", "--target", shown(machine, "MainPID"), "--", "/bin/sh", "-ec"]
    machine.run(
        [*inside, "cp /boot/vmlinuz /var/lib/nestd/a; cp /efi/loader/entries/x.conf /var/lib/nestd/b"]
    )
    assert machine.text("/var/lib/nestd/b") == entry
    machine.sh("cmp /boot/vmlinuz /var/lib/nestd/a")
    for path in ("/etc/default/grub.d/zz-nestd.cfg", "/etc/kernel/cmdline", DROPIN):
        machine.run([*inside, f"echo x > {path}.new; mv {path}.new {path}; cat {path}; rm {path}"])
    closed = (
        *("/etc/kernel/postinst.d/x", "/etc/kernel/install.d/x", "/etc/default/x", "/etc/default/grub"),
        *("/etc/grub.d/x", "/etc/x", "/boot/x", "/usr/lib/kernel/install.d/x"),
    )
    for path in closed:
        tried = machine.run([*inside, f"mkdir -p {Path(path).parent} && echo x > {path}"], check=False)
        assert tried.code != 0 and "Read-only" in tried.stderr, (path, tried)
    for folder in ("/etc/default/grub.d", "/etc/kernel"):
        tried = machine.run([*inside, f"cp /bin/true {folder}/x && {folder}/x"], check=False)
        machine.sh(f"rm {folder}/x")
        assert tried.code == 126 and "Permission denied" in tried.stderr, (folder, tried)


@pytest.mark.nightly
def test_disabled_it_stays_away_at_boot_and_comes_when_called(machine: Machine) -> None:
    machine.sh(f"nestctl disable; systemctl disable {UNIT}")
    machine.reboot()
    assert shown(machine, "ActiveState") == "inactive"
    assert machine.out("cat", PARAMETER) in ("0", "N")
    assert_truth(machine, "off", "off")
    assert shown(machine, "ActiveState") == "active"


@pytest.mark.nightly
def test_a_boot_that_the_command_line_decided_says_so(machine: Machine) -> None:
    machine.sh("nestctl disable")
    machine.restart("kvm_amd.nested=1")
    [drift] = journal(machine, DRIFT)
    assert "it came up so in this boot, as the kernel command line gives on" in drift["MESSAGE"]
    # Another nestd of this boot knows it still, and a reload by hand is another story.
    machine.sh(f"systemctl restart {UNIT}")
    assert "it came up so in this boot" in json.loads(machine.out("nestctl", "--json", "status"))["drift"]
    machine.sh(
        "modprobe -r kvm_amd; modprobe kvm_amd nested=0; modprobe -r kvm_amd; modprobe kvm_amd nested=1"
    )
    wait_until(machine, "$(nestctl --json status | grep -c 'loaded anew') == 1")


@pytest.mark.nightly
def test_a_udev_that_never_ends_keeps_guests_waiting_for_a_while(machine: Machine) -> None:
    machine.write("/usr/local/lib/slow", "#!/bin/sh\nexec sleep 60\n", mode=0o755)
    machine.write("/etc/udev/rules.d/00-slow.rules", RULE)
    machine.reboot()
    assert said(machine, "udev is still busy after 10 s")
