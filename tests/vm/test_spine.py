# SPDX-License-Identifier: LGPL-2.1-or-later
"""The whole way on a real kernel, systemd, bus, polkit and udev: from a busctl call to a nested guest."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.vm.agent_client import Result
from tests.vm.machine import Machine

MANAGER = ("org.nestd1", "/org/nestd1", "org.nestd1.Manager")
PARAMETER = "/sys/module/kvm_amd/parameters/nested"
DROPIN = "/etc/modprobe.d/zz-nestd.conf"
GUEST = "--kernel /boot/vmlinuz --initrd /usr/share/nestd-test/guest.cpio.gz --append 'console=ttyS0 quiet'"
ALLOW = """polkit.addRule(function(action, subject) {
    if (action.id.indexOf("org.nestd1.") == 0 && subject.user == "alice") { return polkit.Result.YES; }
});
"""


def prop(machine: Machine, name: str) -> Any:
    """A property of the manager, as busctl reads it."""
    return json.loads(machine.out("busctl", "-j", "get-property", *MANAGER, name))["data"]


def call(machine: Machine, *arguments: str, user: str = "root", check: bool = True) -> Result:
    """Call a method of the manager with busctl."""
    return machine.run(["busctl", "-j", "call", *MANAGER, *arguments], user=user, check=check)


def change(machine: Machine, method: str) -> dict[str, Any]:
    """Enable or Disable as root, without options; the result as a dictionary."""
    answer = json.loads(call(machine, method, "a{sv}", "0").stdout)["data"][0]
    return {key: value["data"] for key, value in answer.items()}


def state_of(machine: Machine) -> dict[str, str]:
    """All that a change could touch."""
    return {
        "parameter": machine.sh(f"cat {PARAMETER} || echo none").stdout.strip(),
        "drop-in": machine.sh(f"cat {DROPIN} 2>/dev/null || echo none").stdout,
        "modules": machine.sh("lsmod | awk '/^kvm/ {print $1}' | sort").stdout,
    }


def assert_truth(machine: Machine, nested: str, at_boot: str) -> None:
    """busctl, nestctl and the kernel tell the same."""
    assert prop(machine, "Nested") == nested
    assert prop(machine, "NestedAtBoot") == at_boot
    assert machine.out("cat", PARAMETER) in ({"on": ("1", "Y"), "off": ("0", "N")}[nested])
    status = json.loads(machine.out("nestctl", "--json", "status"))
    assert (status["nested"], status["nested-at-boot"]) == (nested, at_boot)
    assert status["guest-extension"] is (nested == "on")
    text = machine.out("nestctl", "status")
    assert f": {nested}" in text and "kvm_amd" in text


def test_disable_and_enable_are_real(machine: Machine) -> None:
    """Points 1 and 2."""
    assert_truth(machine, "on", "on")
    assert machine.sh(f"test -e {DROPIN}", check=False).code == 1
    kvm_since = machine.out("stat", "-c", "%Y", "/sys/module/kvm/initstate")
    machine.write("/sys/module/kvm/parameters/halt_poll_ns", "12345")

    with machine.background(["udevadm", "monitor", "--kernel", "--subsystem-match=module"]) as events:
        events.wait_for("KERNEL - the kernel uevent", 30)
        result = change(machine, "Disable")
        assert result["changed"] is True
        assert (result["nested"], result["nested-at-boot"], result["reboot-required"]) == (
            "off",
            "off",
            False,
        )
        assert result["steps"] == [
            f"write {DROPIN}: options kvm_amd nested=0",
            "unload kvm_amd",
            "load kvm_amd with nested=0",
        ]
        events.wait_for("remove   /module/kvm_amd", 10)
        events.wait_for("add      /module/kvm_amd", 10)
    assert_truth(machine, "off", "off")
    assert "options kvm_amd nested=0" in machine.text(DROPIN)

    # by hand, without nestd: the drop-in decides
    machine.sh("modprobe -r kvm_amd; modprobe kvm_amd")
    assert_truth(machine, "off", "off")
    machine.write("/sys/module/kvm/parameters/halt_poll_ns", "12345")

    result = change(machine, "Enable")
    assert (result["changed"], result["nested"], result["nested-at-boot"]) == (True, "on", "on")
    assert_truth(machine, "on", "on")
    # kvm itself was not reloaded by nestd: its run-time parameters are what they were
    assert machine.out("cat", "/sys/module/kvm/parameters/halt_poll_ns") == "12345"
    assert kvm_since
    machine.sh("modprobe -r kvm_amd; modprobe kvm_amd")
    assert_truth(machine, "on", "on")

    # once more: it is so already
    assert change(machine, "Enable")["changed"] is False


def test_it_holds_after_a_reboot(machine: Machine) -> None:
    """The drop-in is what the next boot reads, and NestedAtBoot told it before."""
    change(machine, "Disable")
    assert prop(machine, "NestedAtBoot") == "off"
    machine.reboot()
    assert_truth(machine, "off", "off")


def test_scope_runtime_is_gone_after_a_reload_by_hand(machine: Machine) -> None:
    call(machine, "Disable", "a{sv}", "1", "scope", "s", "runtime")
    assert_truth(machine, "off", "on")
    assert machine.sh(f"test -e {DROPIN}", check=False).code == 1
    machine.sh("modprobe -r kvm_amd; modprobe kvm_amd")
    assert_truth(machine, "on", "on")


@pytest.mark.parametrize("interactive", ["yes", "no"])
def test_without_authorization_nothing_changes(machine: Machine, interactive: str) -> None:
    """Point 3, first half."""
    before = state_of(machine)
    refused = machine.run(
        [
            "busctl",
            f"--allow-interactive-authorization={interactive}",
            "call",
            *MANAGER,
            "Disable",
            "a{sv}",
            "0",
        ],
        user="alice",
        check=False,
    )
    assert refused.code != 0
    assert "needs somebody's authorization" in refused.stderr, refused.stderr
    assert state_of(machine) == before
    told = machine.run(["nestctl", "--no-ask-password", "disable"], user="alice", check=False)
    assert told.code == 3, told.stderr
    assert state_of(machine) == before
    # reading is open
    assert machine.run(["nestctl", "status"], user="nobody").code == 0


def test_a_polkit_rule_lets_a_user_in(machine: Machine) -> None:
    """Point 3, second half."""
    machine.write("/etc/polkit-1/rules.d/10-test.rules", ALLOW)
    machine.sh("systemctl restart polkit")
    call(machine, "Disable", "a{sv}", "0", user="alice")
    assert_truth(machine, "off", "off")
    assert machine.run(["nestctl", "--no-ask-password", "enable"], user="bob", check=False).code == 3
    assert_truth(machine, "off", "off")


def test_what_others_do_is_told_within_a_second(machine: Machine) -> None:
    """Point 4. The clock is the machine's own: each signal and each deed has its time beside it."""
    with machine.background(
        ["busctl", "monitor", "--json=short", "--match=type='signal',sender='org.nestd1'"], user="root"
    ) as listener:
        time.sleep(2)  # until it listens
        removed = float(machine.sh("date +%s.%N; modprobe -r kvm_amd").stdout)
        listener.wait_for("ModuleEvent", 20)
        gone = _signals(listener.wait_for("kvm_amd", 20))
        assert gone, "no signal"
        loaded = float(machine.sh("sleep 1; date +%s.%N; modprobe kvm_amd nested=0").stdout)
        time.sleep(3)
        heard = _signals(listener.wait_for("add", 20))
    events = [(s, s["payload"]["data"]) for s in heard if s["member"] == "ModuleEvent"]
    assert ["remove", "kvm_amd"] in [data for _, data in events]
    assert ["add", "kvm_amd"] in [data for _, data in events]
    for signal, data in events:
        deed = removed if data[0] == "remove" else loaded
        if data[1] == "kvm_amd":
            assert 0 <= signal["timestamp-realtime"] / 1e6 - deed < 1 + _LOAD_TIME, data
    changed = [s["payload"]["data"][1] for s in heard if s["member"] == "PropertiesChanged"]
    assert any(values.get("DriverState", {}).get("data") == "unloaded" for values in changed)
    assert any(values.get("Nested", {}).get("data") == "off" for values in changed)
    assert prop(machine, "Nested") == "off"


# Seconds that modprobe itself may take under emulation, before the kernel says a word.
_LOAD_TIME = 3.0


def _signals(text: str) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # the last line is still being written
    return found


@pytest.mark.parametrize("cpu", ["host", "qemu64"])
def test_a_guest_gets_the_extension(machine: Machine, cpu: str) -> None:
    """Point 5: the guest itself says so on its console."""
    launched = machine.sh(f"nestctl launch demo --cpu {cpu} --memory 192M {GUEST}", timeout=240)
    assert "svm" in launched.stdout
    said = machine.sh(
        "set +o pipefail; timeout 120 nestctl console demo < /dev/null | grep -m1 -a '^cpuflags:'",
        timeout=150,
    ).stdout
    assert " svm" in said, said
    unit = dict(
        line.split("=", 1)
        for line in machine.out(
            "systemctl", "show", "nestd-guest-demo.service", "-p", "User,Slice,ActiveState,MainPID,Transient"
        ).splitlines()
    )
    assert unit["User"] == machine.out("id", "-u", "nestd") and unit["Slice"] == "machine.slice"
    assert unit["ActiveState"] == "active" and unit["Transient"] == "yes"
    assert machine.out("stat", "-c", "%U", f"/proc/{unit['MainPID']}") == "nestd"
    arguments = machine.text(f"/proc/{unit['MainPID']}/cmdline").split("\0")
    assert arguments[arguments.index("-cpu") + 1] == {"host": "host", "qemu64": "qemu64,+svm"}[cpu]
    shown = json.loads(machine.out("nestctl", "--json", "show", "demo"))
    assert shown["nesting"] is True and shown["state"] == "running"

    # while it runs, the driver is in use, and the refusal names who holds it
    before = state_of(machine)
    refused = machine.run(["nestctl", "disable"], check=False)
    assert refused.code == 5 and "nestd-guest-demo.service" in refused.stderr, refused.stderr
    assert state_of(machine) == before


def test_launch_refuses_while_nesting_is_off(machine: Machine) -> None:
    """Point 5, the refusal: before anything starts."""
    change(machine, "Disable")
    refused = call(machine, "Launch", "sa{sv}", "demo", "1", "kernel", "s", "/boot/vmlinuz", check=False)
    assert refused.code != 0 and "nesting" in refused.stderr.lower(), refused.stderr
    assert machine.out("nestctl", "--json", "list") == "[]"
    assert machine.sh("systemctl list-units --all 'nestd-guest-*' --no-legend").stdout.strip() == ""


def test_guests_live_and_end(machine: Machine) -> None:
    """Point 6."""
    machine.sh(f"nestctl launch one --memory 192M {GUEST}", timeout=240)
    before = json.loads(machine.out("nestctl", "--json", "show", "one"))
    machine.sh("systemctl restart nestd.service")
    after = json.loads(machine.out("nestctl", "--json", "show", "one"))
    assert after == before
    assert machine.sh(f"test -d /proc/{before['pid']}").code == 0
    assert [guest["name"] for guest in json.loads(machine.out("nestctl", "--json", "list"))] == ["one"]

    with machine.background(
        [
            "busctl",
            "monitor",
            "--json=short",
            "--match=type='signal',sender='org.nestd1',member='GuestExited'",
        ]
    ) as listener:
        time.sleep(2)
        machine.sh(
            "timeout 120 sh -c 'nestctl console one < /dev/null | grep -m1 -a guest-ready'", timeout=150
        )
        machine.sh("nestctl stop one --timeout 60", timeout=120)
        ended = _signals(listener.wait_for("GuestExited", 20))[-1]["payload"]["data"]
        assert ended == ["/org/nestd1/guest/one", "one", "success"]
        # SIGKILL by nestd restarting does no harm either: the next guest outlives it
        machine.sh(f"nestctl launch two --memory 192M {GUEST}", timeout=240)
        machine.sh("systemctl kill --signal=KILL nestd.service; sleep 1; systemctl start nestd.service")
        assert json.loads(machine.out("nestctl", "--json", "show", "two"))["state"] == "running"
        machine.sh("nestctl kill two")
        ended = _signals(listener.wait_for('"two"', 20))[-1]["payload"]["data"]
        assert ended == ["/org/nestd1/guest/two", "two", "signal"]
    assert machine.out("nestctl", "--json", "list") == "[]"
    assert machine.sh("systemctl --failed --no-legend").stdout.strip() == ""
    assert machine.sh("ls /run/nestd/guests 2>/dev/null | wc -l").stdout.strip() == "0"
    # the name is free again, and the driver too
    machine.sh("nestctl disable")


def test_a_user_owns_what_it_launched(machine: Machine) -> None:
    machine.write("/etc/polkit-1/rules.d/10-test.rules", ALLOW)
    machine.sh("systemctl restart polkit")
    machine.sh(f"nestctl --no-ask-password launch mine --memory 192M {GUEST}", user="alice", timeout=240)
    shown = json.loads(machine.out("nestctl", "--json", "show", "mine", user="bob"))
    assert shown["owner"] == int(machine.out("id", "-u", "alice"))
    for verb in ("stop", "kill", "console"):
        refused = machine.run(["nestctl", "--no-ask-password", verb, "mine"], user="bob", check=False)
        assert refused.code == 3, (verb, refused)
    machine.sh("nestctl --no-ask-password kill mine", user="alice")


def test_qemus_own_words_reach_the_caller(machine: Machine) -> None:
    secret = "/root/secret.qcow2"
    machine.sh(
        f"qemu-img create -q -f qcow2 {secret} 1M 2>/dev/null || truncate -s 1M {secret}; chmod 600 {secret}"
    )
    for path, why in ((secret, "Permission denied"), ("/nowhere/disk.raw", "No such file")):
        refused = machine.run(
            ["nestctl", "launch", "bad", "--disk", f"path={path},format=raw"], check=False, timeout=240
        )
        assert refused.code == 1 and why in refused.stderr, refused.stderr
    assert machine.sh("systemctl list-units --all 'nestd-guest-*' --no-legend").stdout.strip() == ""


@pytest.mark.parametrize(
    ("method", "arguments", "says"),
    [
        ("Enable", ["a{sv}", "1", "scoop", "s", "both"], "scoop"),
        ("Enable", ["a{sv}", "1", "scope", "u", "3"], "scope"),
        ("Enable", ["a{sv}", "1", "scope", "s", "forever"], "forever"),
        ("Enable", ["s", "yes"], "a{sv}"),
        ("GetGuest", ["s", "nobody-knows"], "nobody-knows"),
        ("Launch", ["sa{sv}", "../../x", "0"], "name"),
        ("Launch", ["sa{sv}", "a@b.service", "0"], "name"),
        ("Launch", ["sa{sv}", "demo", "1", "colour", "s", "red"], "colour"),
    ],
)
def test_bad_requests_are_named(machine: Machine, method: str, arguments: list[str], says: str) -> None:
    before = state_of(machine)
    refused = call(machine, method, *arguments, check=False)
    assert refused.code != 0 and says in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr and ".py" not in refused.stderr
    assert state_of(machine) == before


def test_a_machine_without_what_is_needed(machine: Machine) -> None:
    """modprobe missing or failing, /etc read-only, modules disabled: named, and nothing changed."""
    before = state_of(machine)

    machine.sh("mv /usr/bin/kmod /usr/bin/kmod.away")
    refused = machine.run(["nestctl", "disable"], check=False)
    machine.sh("mv /usr/bin/kmod.away /usr/bin/kmod")
    assert refused.code == 1 and "modprobe is not installed" in refused.stderr, refused.stderr
    assert state_of(machine) == before

    machine.write("/etc/modprobe.d/broken.conf", "install kvm_amd /bin/false\n")
    refused = machine.run(["nestctl", "disable"], check=False)
    machine.sh("rm /etc/modprobe.d/broken.conf")
    assert refused.code == 1 and "kvm_amd" in refused.stderr, refused.stderr
    machine.sh("modprobe kvm_amd || true")
    assert machine.sh(f"test -e {DROPIN}", check=False).code == 1

    machine.sh("mount --bind /etc/modprobe.d /etc/modprobe.d && mount -o remount,ro,bind /etc/modprobe.d")
    machine.sh("systemctl restart nestd")
    refused = machine.run(["nestctl", "disable"], check=False)
    assert refused.code == 1 and "read-only" in refused.stderr.lower(), refused.stderr
    machine.sh("umount /etc/modprobe.d; systemctl restart nestd")

    before = state_of(machine)
    machine.sh("sysctl -q kernel.modules_disabled=1")
    refused = machine.run(["nestctl", "disable", "--runtime"], check=False)
    assert refused.code == 4 and "modules_disabled" in refused.stderr, refused.stderr
    assert state_of(machine) == before


def test_removal_leaves_the_module_and_purge_the_drop_in(machine: Machine) -> None:
    """Point 7."""
    change(machine, "Disable")
    machine.sh("dpkg --remove nestd")
    assert machine.sh("systemctl is-active nestd.service", check=False).stdout.strip() != "active"
    assert (
        machine.sh("busctl list --acquired --no-legend | grep -c org.nestd1", check=False).stdout.strip()
        == "0"
    )
    assert machine.out("cat", PARAMETER) in {"0", "N"}
    assert machine.sh(f"test -e {DROPIN}").code == 0
    machine.sh("dpkg --purge nestd")
    assert machine.sh(f"test -e {DROPIN}", check=False).code == 1
    assert machine.out("cat", PARAMETER) in {"0", "N"}
    assert (
        machine.sh("ls -d /var/lib/nestd /run/nestd /usr/lib/python3/dist-packages/nestd", check=False).code
        != 0
    )


def test_it_starts_on_demand_and_stops_cleanly(machine: Machine) -> None:
    machine.sh("systemctl disable --now nestd.service")
    assert machine.out("systemctl", "show", "-p", "Result", "nestd.service") == "Result=success"
    machine.sh("systemctl daemon-reload")
    assert prop(machine, "Nested") == "on"
    assert machine.out("systemctl", "is-active", "nestd.service") == "active"


def test_the_journal_tells_what_was_done(machine: Machine) -> None:
    change(machine, "Disable")
    entries = [
        json.loads(line)
        for line in machine.out("journalctl", "-u", "nestd.service", "-o", "json", "--no-pager").splitlines()
    ]
    done = [entry for entry in entries if "kvm_amd" in str(entry["MESSAGE"])]
    assert done and all(len(entry["MESSAGE_ID"]) == 32 for entry in done)
