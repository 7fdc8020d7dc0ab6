# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import pytest

from nestd.guests.probe import verdict
from nestd.guests.probe.exits import line
from nestd.guests.probe.verdict import Asked, End, Verdict
from nestd.model import Extension, Nesting
from tests.guests.probe.test_told import SPREAD

FLAGS = line({"extension": True, "flags": ["fpu", "svm", "npt"]})
LOADED = FLAGS + line({"loaded": True, "words": ""}) + line({"api": 12})
CREATED = LOADED + line({"created": True})
RAN = CREATED + line({"ran": True})
END = line({"log": ["kvm: Nested Virtualization enabled"]}) + line({"end": True})
WHOLE = RAN + line({"kernel": SPREAD}) + line({"user": SPREAD}) + END


def judged(text: str, end: End = End.TOLD, cpu: str = "host", nested: Nesting = Nesting.ON) -> Verdict:
    return verdict.of(text, end, Asked(Extension.SVM, cpu, 60, nested))


def test_all_works() -> None:
    seen = judged(WHOLE)
    assert (seen.level, seen.why, seen.unmeasured) == ("", "", "")
    assert seen.extension and seen.kvm_loaded and seen.vm_created and seen.ran
    assert seen.flags == ("fpu", "svm", "npt") and seen.log == "kvm: Nested Virtualization enabled"
    assert seen.exits and seen.exits.kernel.median == 2.5
    assert verdict.complete(WHOLE) and not verdict.complete(RAN)


def failed(reason: int, number: int = 0, stage: str = "run") -> str:
    return line({"failed": {"stage": stage, "errno": number, "reason": reason, "detail": 0}})


PLAIN = line({"extension": False, "flags": ["fpu"]}) + line({"loaded": False, "words": "insmod: ERROR"}) + END
DENIED = FLAGS + line({"loaded": False, "words": "insmod: ERROR: \x1b[31mOperation\nnot permitted"}) + END
NO_NPT = LOADED.replace(', "npt"', "") + line({"created": True}) + failed(9) + END
BUILTIN = FLAGS + line({"loaded": False, "builtin": True, "words": ""}) + END
SILENT = FLAGS + line({"loaded": False, "builtin": False, "words": ""}) + END
PANIC = "[    1.0] Kernel panic - not syncing: VFS: \x1b[1mno root\r\n---[ end"


@pytest.mark.parametrize(
    ("text", "end", "level", "why"),
    [
        (PLAIN, End.TOLD, "L1", "with -cpu host this machine's KVM does not give it. Nesting is on here"),
        (DENIED, End.TOLD, "L1",
         "but no KVM: insmod said: insmod: ERROR: [31mOperation; not permitted. The kernel: kvm: Nested"),
        (LOADED + failed(0, 16, "vm") + END, End.TOLD, "L2",
         "KVM, but L2 does not run: KVM created no virtual machine: Device or resource busy (EBUSY)."),
        (NO_NPT, End.TOLD, "L2", "reason 9, hardware reason 0x0). L1 has no nested paging (the CPU flag npt"),
        (CREATED + failed(17) + END, End.TOLD, "L2", "gave up a guest in real mode (KVM_EXIT_INTERNAL_ERROR"),
        (BUILTIN, End.TOLD, "L1", "no KVM: its KVM is built into the kernel and did not start. The kernel"),
        (SILENT, End.TOLD, "L1", "L1 has svm, but no KVM: insmod said: no word. The kernel: kvm: Nested"),
        (CREATED + END, End.TOLD, "L1", "ended before it had tried to run L2"),
        ("", End.LATE, "L1", "did not boot: 60 s were over. The last that it said: nothing"),
        ("one\r\ntwo\r\n", End.GONE, "L1", "did not boot: QEMU ended. The last that it said: two"),
        (PANIC, End.PANIC, "L1",
         "did not boot: its kernel panicked (Kernel panic - not syncing: VFS: [1mno root)."),
        (FLAGS, End.LATE, "L1", "60 s were over before it had told whether its KVM driver loads."),
        (LOADED, End.LATE, "L1", "60 s were over when it was to create a virtual machine."),
        (CREATED, End.LATE, "L2", "60 s were over when it was to run: L2 does not come back."),
        (CREATED + line({"failed": "so"}), End.TOLD, "L1", "cannot be understood: the failure is not"),
    ],
)  # fmt: skip
def test_which_level_failed_and_why(text: str, end: End, level: str, why: str) -> None:
    seen = judged(text, end)
    assert seen.level == level
    assert why in seen.why
    assert seen.why.isprintable()


MEASURED = RAN + line({"kernel": SPREAD})


@pytest.mark.parametrize(
    ("text", "end", "unmeasured"),
    [
        (RAN + END, End.TOLD, "L2 ran, but L1, the probe guest, ended before its exits were measured."),
        (RAN, End.GONE, "L2 ran, but QEMU ended before its exits were measured."),
        (MEASURED, End.LATE, "L2 ran, but 60 s were over before its exits were measured."),
        (RAN + PANIC, End.PANIC, "but its kernel panicked (Kernel panic - not syncing: VFS: [1mno root)"),
        (RAN + failed(0, stage="time") + END, End.TOLD,
         "L2 ran, but its exits were not measured: KVM did not come back from a guest of a few instructions"),
        (MEASURED + failed(17) + END, End.TOLD, "were not measured: KVM gave up a guest in real mode (KVM"),
        (WHOLE + line({"user": "fast"}), End.TOLD, "cannot be understood: the measurement is not"),
        (WHOLE + line({"failed": "so"}), End.TOLD, "cannot be understood: the failure is not"),
    ],
)  # fmt: skip
def test_what_ran_works_though_it_was_not_measured(text: str, end: End, unmeasured: str) -> None:
    seen = judged(text, end)
    assert (seen.ran, seen.level, seen.why) == (True, "", "")
    assert unmeasured in seen.unmeasured and seen.unmeasured.isprintable()


def test_why_there_is_no_extension() -> None:
    assert judged(PLAIN, nested=Nesting.OFF).why.endswith(
        "does not give it. Nesting is off here: turn it on (`nestctl enable`)."
    )
    for cpu in ("host,-svm", "EPYC,+svm,-avx2,-svm"):
        taken = judged(PLAIN, cpu=cpu, nested=Nesting.OFF).why
        assert taken == "L1 has no svm: cpu-features takes svm away. Leave -svm out."
    assert "takes svm away" not in judged(PLAIN, cpu="host,-svm-lock").why


def test_nested_paging_is_not_blamed_where_it_is() -> None:
    assert "nested paging" not in judged(CREATED + failed(9) + END).why


def test_a_panic_counts_when_its_line_is_whole() -> None:
    assert verdict.panic("Kernel panic - not syncing: half a li") == ""
    assert verdict.panic(PANIC).startswith("Kernel panic")


def test_a_guest_that_panics_without_an_end_of_line_is_read_in_one_pass() -> None:
    """A MiB of it, which is what a console's log holds; to read it over and over would take minutes."""
    assert verdict.panic("Kernel panic - not syncing" * 40_000) == ""


def test_what_is_no_list_of_texts_is_none() -> None:
    seen = judged(END + line({"flags": "all", "log": [1, "two"], "loaded": "yes", "extension": 1}))
    assert (seen.flags, seen.log, seen.kvm_loaded, seen.extension) == ((), "two", False, False)
