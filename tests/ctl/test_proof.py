# SPDX-License-Identifier: LGPL-2.1-or-later
"""verify, measure and cpu, as whole processes on pipes and on a terminal."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from nestd.ctl import proofrender
from tests.ctl.running import Fake, Terminal

WORKS = """\
         Nesting: works — a guest of a guest ran on this machine
   L1, the guest: booted in 3.2 s, CPU EPYC,+svm, has the extension
   Missing flags: x2avic
         Its KVM: loaded
   L2, its guest: ran
   An exit of L2: 25.4 µs handled in the kernel, 43.2 µs handled in user space
            Took: 7.5 s
"""
DOES_NOT = """\
         Nesting: does not work — L1 has no svm: with -cpu host\\x1b this machine's KVM does not give it.
   L1, the guest: booted in 3.2 s, CPU host, without the extension
   Missing flags: x2avic
         Its KVM: not loaded
   L2, its guest: not created
L1's kernel says: kvm: no hardware support
                  kvm_amd: SVM not supported
            Took: 7.5 s
"""
MEASURED = """\
EXIT                   OF            MEDIAN   QUARTILES           ROUNDS
handled in the kernel  a guest (L1)  1.27 µs  1.20 µs to 1.31 µs  412
handled in user space  a guest (L1)  2.88 µs  2.80 µs to 3.01 µs  207
Measured on AMD EPYC\\x1b[2J 7763 with kvm_amd, inside kvm.
"""
LEVELS = """\
EXIT                   OF              MEDIAN   QUARTILES           ROUNDS
handled in the kernel  a guest (L1)    1.27 µs  1.20 µs to 1.31 µs  412
handled in the kernel  its guest (L2)  25.4 µs  24.0 µs to 31.0 µs  40
handled in user space  a guest (L1)    2.88 µs  2.80 µs to 3.01 µs  207
handled in user space  its guest (L2)  43.2 µs  42.0 µs to 50.0 µs  38
One level deeper, an exit costs 20 times (handled in the kernel) and 15 times (handled in user space) as much.
Measured on AMD EPYC\\x1b[2J 7763 with kvm_amd, inside kvm.
"""
UNMEASURED = """\
         Nesting: works — a guest of a guest ran on this machine
   L1, the guest: booted in 3.2 s, CPU EPYC,+svm, has the extension
   Missing flags: x2avic
         Its KVM: loaded
   L2, its guest: ran
    Not measured: L2 ran, but QEMU\\x1b ended before its exits were measured.
L1's kernel says: kvm_amd: Nested Virtualization enabled
            Took: 7.5 s
"""
CPU = """\
QEMU:
-cpu EPYC,+svm
libvirt:
<cpu mode='custom'>
  <model>EPYC</model>
</cpu>
A guest with it can nest on this machine.
"""
CANNOT = "A guest with it cannot nest on this machine: QEMU started it without these flags: svm, npt."


@pytest.fixture
def off(fake: Fake) -> Iterator[Fake]:
    """A machine where nesting is off."""
    without = fake.folder / "without"
    without.touch()
    yield fake
    without.unlink()


@pytest.fixture
def doubtful(fake: Fake) -> Iterator[Fake]:
    """A machine where nesting works and is not measured, and whose libvirt is old."""
    (fake.folder / "doubtful").touch()
    yield fake
    (fake.folder / "doubtful").unlink()


def test_nesting_that_works(fake: Fake) -> None:
    done = fake.run("verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, WORKS, "")
    (call,) = fake.calls()
    assert (call["member"], call["body"], call["interactive"]) == ("Verify", [{}], True)


def test_nesting_that_does_not(off: Fake) -> None:
    done = off.run("verify")
    assert (done.returncode, done.stdout, done.stderr) == (4, DOES_NOT, "")
    done = off.run("verify", "--json")
    assert done.returncode == 4 and json.loads(done.stdout)["level"] == "L1"


def test_what_works_and_was_not_measured(doubtful: Fake) -> None:
    done = doubtful.run("verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, UNMEASURED, "")
    done = doubtful.run("measure", "--levels")
    assert done.returncode == 1
    why = "L2 ran, but QEMU\\x1b ended before its exits were measured."
    assert done.stdout == MEASURED.replace("Measured", f"L2 was not measured: {why}\nMeasured")


def test_what_libvirt_may_not_know_is_told(doubtful: Fake) -> None:
    flag = "libvirt may not know kvm-pv-eoi\\x1b: take another one, or leave it out."
    doubts = f"libvirt may not know EPYC-v3: take EPYC. {flag}"
    done = doubtful.run("cpu")
    assert (done.returncode, done.stdout) == (0, CPU.rpartition("A guest")[0] + doubts + "\n")
    assert doubtful.run("cpu", "--libvirt").stderr == f"nestctl: {doubts}\n"
    assert doubtful.run("cpu", "--qemu").stderr == ""


def test_what_is_verified(fake: Fake) -> None:
    line = "verify --cpu=EPYC --cpu-feature=-avx2 --cpu-feature=+npt --timeout 300 --user games --json"
    values = json.loads(fake.run(*line.split()).stdout)
    assert values["exits"]["user"] == {"median": 43210, "low": 42000, "high": 50000, "rounds": 38}
    asked = {"cpu": "EPYC", "cpu-features": ["-avx2", "+npt"], "user": "games", "timeout": 300}
    assert fake.calls()[0]["body"] == [asked]


def test_what_an_exit_costs(fake: Fake) -> None:
    done = fake.run("measure")
    assert (done.returncode, done.stdout, done.stderr) == (0, MEASURED, "")
    values = json.loads(fake.run("measure", "--json").stdout)
    assert set(values) == {"exits", "virtualization", "driver", "cpu-model"}
    assert values["exits"]["kernel"] == {"median": 1270, "low": 1200, "high": 1310, "rounds": 412}
    assert [(call["member"], call["body"]) for call in fake.calls()] == [("MeasureExit", [{}])] * 2


def test_the_price_of_a_level(fake: Fake) -> None:
    done = fake.run("measure", "--levels")
    assert (done.returncode, done.stdout, done.stderr) == (0, LEVELS, "")
    values = json.loads(fake.run("measure", "--levels", "--json").stdout)
    assert values["ratios"] == {"kernel": pytest.approx(20), "user": pytest.approx(15, rel=0.01)}
    assert values["inside"]["works"] is True
    assert [call["member"] for call in fake.calls()] == ["MeasureExit", "Verify"] * 2
    fake.run("measure", "--levels", "--timeout=300")
    assert fake.calls()[-1]["body"] == [{"timeout": 300}]


def test_a_level_that_there_is_not(off: Fake) -> None:
    done = off.run("measure", "--levels")
    assert done.returncode == 4
    why = "L1 has no svm: with -cpu host\\x1b this machine's KVM does not give it."
    assert done.stdout == MEASURED.replace("Measured", f"L2 was not measured: {why}\nMeasured")


def test_a_cpu_in_both_forms(fake: Fake) -> None:
    done = fake.run("cpu", "--cpu=EPYC")
    assert (done.returncode, done.stdout, done.stderr) == (0, CPU, "")
    assert fake.calls()[0]["body"] == [{"cpu": "EPYC"}]
    assert fake.run("cpu", "--qemu").stdout == "-cpu EPYC,+svm\n"
    assert fake.run("cpu", "--libvirt").stdout == "<cpu mode='custom'>\n  <model>EPYC</model>\n</cpu>\n"
    assert json.loads(fake.run("cpu", "--json").stdout)["nesting"] is True


def test_a_cpu_that_cannot_nest(off: Fake) -> None:
    done = off.run("cpu")
    assert done.returncode == 4 and done.stdout.endswith(f"</cpu>\n{CANNOT}\n")
    # Alone, it stays what a script takes.
    done = off.run("cpu", "--qemu")
    assert (done.returncode, done.stdout, done.stderr) == (4, "-cpu EPYC,+svm\n", f"nestctl: {CANNOT}\n")


@pytest.mark.parametrize(("name", "code"), [("NotSupported", 4), ("Busy", 5), ("VerifyFailed", 1)])
@pytest.mark.parametrize(
    ("command", "member"), [("verify", "Verify"), ("measure", "MeasureExit"), ("cpu", "CheckCpu")]
)
def test_errors_have_their_exit_codes(fake: Fake, command: str, member: str, name: str, code: int) -> None:
    fake.fail({member: (f"org.nestd1.Error.{name}", "kvm-unusable: it is.")})
    done = fake.run(command)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"nestctl: kvm-unusable: it is. [{name}]\n"


def test_both_forms_at_once_are_none(fake: Fake) -> None:
    assert fake.run("cpu", "--qemu", "--libvirt").returncode == 2
    assert fake.calls() == []


@pytest.mark.parametrize(
    ("command", "member", "words"),
    [
        ("verify", "Verify", "Booting a guest that runs a guest of its own"),
        ("measure", "MeasureExit", "Measuring"),
        ("cpu", "CheckCpu", "Asking QEMU"),
    ],
)
def test_a_person_sees_that_it_goes_on(fake: Fake, command: str, member: str, words: str) -> None:
    fake.fail({member: None})
    with Terminal(fake, command) as terminal:
        terminal.expect(words)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == -signal.SIGINT


@pytest.mark.parametrize(
    ("nanoseconds", "words"),
    [
        (0, "0 ns"),
        (-3.2, "-3 ns"),
        (812.4, "812 ns"),
        (999.6, "1.00 µs"),
        (1000, "1.00 µs"),
        (12_345, "12.3 µs"),
        (123_456, "123 µs"),
        (4.5e7, "45.0 ms"),
        (2e9, "2.00 s"),
        ("much", "unknown"),
    ],
)
def test_times(nanoseconds: object, words: str) -> None:
    assert proofrender.time(nanoseconds) == words


def test_a_cpu_host_that_cannot_nest_has_dropped_nothing() -> None:
    told = proofrender.cpu({"qemu": "host", "libvirt": "", "nesting": False, "missing": []})
    assert told.endswith("cannot nest on this machine: QEMU started it without the extension.\n")


def test_an_older_nestd_or_a_liar_is_no_crash() -> None:
    assert "Nesting: does not work — unknown" in proofrender.verified({})
    assert proofrender.measured({"exits": {}}).endswith("with unknown, inside unknown.\n")
    assert proofrender.ratios({"kernel": {"median": 0.0}}, {"kernel": {"median": 1.0}}) == {}
    assert proofrender.cpu({}).startswith("QEMU:\n-cpu unknown\n")
