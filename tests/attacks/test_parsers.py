# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every parser: any bytes or text in, a value or the parser's own error out, and never for ever.

With another seed, or for longer: tests/attacks/README.md.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from nestd import log
from nestd.bus import interface
from nestd.errors import InvalidArgs, Malformed
from nestd.guestmodel import GuestRecord, GuestSpec, GuestState
from nestd.guests import prepare, records, request
from nestd.host import holders, kvm, unitend, words
from nestd.host.services import bus_label_escape
from nestd.model import Extension
from nestd.nesting import drivers, dropin, installs, pending
from nestd.text import bls, cmdline, cpuid, cpuinfo, grub, modprobe, modules, parameter, pe, qemu, qmp
from nestd.text import settings as settings_file
from nestd.text.grubshell import Untold
from nestd.wire import address, body, header, message, sasl
from nestd.wire.frame import Framer
from tests.attacks.values import HOSTILE

SEED = int(os.environ.get("NESTD_FUZZ_SEED", "3"))
EXAMPLES = int(os.environ.get("NESTD_FUZZ_EXAMPLES", "200"))
_SECONDS = 20  # of processor time for one input; what is quadratic takes hours for the long ones
_LONG = 1 << 18

# A text as nestd reads it from a file: any bytes, those that are no UTF-8 kept as surrogates.
_WORDS = (
    "flags\t: vmx svm\n", "features\t: sie", "platform\t: PowerNV", "options kvm_amd nested=", "options",
    "alias ", "\\\n", "\\", "#",
    "install kvm_intel /bin/true", '"', '""', "=", " ", "\t", "\n", "\0", "--", "kvm_amd.nested=1",
    "kernel/kvm-amd.ko.xz:",
    "kernel/kvm.ko", ":", "/", "0::/system.slice/x.service", "machine-qemu\\x2d1\\x2dx.scope",
    "nestd-guest-", ".service", "\\x", "\\xff",
    "unix:path=", "unix:abstract=", ";", ",", "%", "%zz", "%00", "runtime=yes", "<node>",
    "<interface name='a.b'>", "<method/>", "&x;",
    '{"QMP": {}}', '{"return": ', '{"error": {"desc": "', "[" * 500, "1e999", "NaN", "\udcff", "9" * 5000,
        "-1", "0x1", "1_0", "٣",
)  # fmt: skip
_raw = st.binary(max_size=300)
_texts = (
    _raw.map(lambda x: x.decode("utf-8", "surrogateescape"))
    | st.lists(st.sampled_from(_WORDS) | st.text(max_size=8), max_size=12).map("".join)
    | st.sampled_from(HOSTILE)
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["QMP", "event", "return", "error", "desc", "id", "qom-path", "features", "cpuid-register"]
            )
            | _texts,
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
_UNIT_END = {
    "MESSAGE_ID": "d9b373ed55a64feb8242e02dbe79a49c", "__REALTIME_TIMESTAMP": "1", "UNIT_RESULT": "signal"
}  # fmt: skip
_RECORD = GuestRecord("demo", GuestState.RUNNING, 1, "u", 2, "host", True, (), 1 << 29, 1, 5, "/c")


def _frames(data: bytes) -> list[message.Message]:
    framer, parser = Framer(), message.Parser()
    framer.feed(data)
    found = []
    while (frame := framer.next()) is not None:
        for parse in (message.parse, parser.parse):
            read = parse(frame)
            read.values()
            found.append(read)
    return found


def _record(changed: Mapping[str, Any]) -> GuestRecord:
    known = _RECORD._asdict()
    return records.parse(json.dumps(known | dict(zip(known, changed.values(), strict=False))))


def _spec(values: list[str]) -> GuestSpec:
    name, cpu, feature, path, kernel, append, forward, lab = values
    disks = [{"path": path, "format": "raw"}]
    options = {"cpu": cpu, "cpu-features": [feature], "disks": disks, "kernel": kernel, "append": append}
    network = {"kind": "user", "forwards": [forward]} if forward else {"kind": "lab", "lab": lab}
    more = {"cdrom": path, "network": network, "user-data": append.encode(errors="replace"), "display": "vnc"}
    spec = request.guest_spec(name, "nobody", options | more)
    argv = qemu.arguments(spec, Extension.SVM, "/run/x", "/run/y")
    # A preparation's words are taken apart by systemd alone, at `$`.
    for command in prepare.preparation(spec, None, "/run/x", lambda names: f"/usr/bin/{names[0]}").commands:
        assert all(
            "$" not in word.replace("$$", "").replace("${CREDENTIALS_DIRECTORY}", "") for word in command
        )
    assert not [argument for argument in argv if "\n" in argument or "\0" in argument]
    shape = qemu.shape(argv)
    assert shape is not None and shape == qemu.shape_of(spec, Extension.SVM)
    return spec


_AMD = next(driver for driver in drivers.table("6.1.0") if driver.name == "kvm_amd")
_CALL = message.call(7, "org.nestd1", "/org/nestd1", "org.nestd1.Manager", "Enable", "a{sv}", [{}])
_changed_calls = st.lists(
    st.tuples(st.integers(0, len(_CALL) - 1), st.integers(0, 255)), min_size=1, max_size=6
).map(lambda changes: _with(_CALL, changes))


def _with(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for place, value in changes:
        changed[place] = value
    return bytes(changed)


def _installs(text: str) -> object:
    directives = [("x:1", directive) for directive in modprobe.parse(text.replace(" ", " install kvm_amd "))]
    return installs.found(directives, ("kvm_amd",), text)


def _grub(text: str) -> grub.Choice:
    beside = {"custom.cfg": text, "grubenv": text}
    return grub.choose(text, file="/x", beside=beside, variables={}, entries=())


# Name → the parser, what goes in, and the errors that its docstring names.
Parser = tuple[Callable[[Any], object], st.SearchStrategy[Any], tuple[type[Exception], ...]]
PARSERS: dict[str, Parser] = {
    "cmdline.parse": (lambda x: (cmdline.parse(x), cmdline.parse(x, whole=True)), _texts, ()),
    "cmdline.parameter": (lambda x: cmdline.parameter(cmdline.parse(x), "kvm_amd", "nested"), _texts, ()),
    "cpuinfo": (cpuinfo.extensions, _texts, ()),
    "modprobe.parse": (
        lambda x: [modprobe.setting(each, "nested") for each in modprobe.parse(x)], _texts, ()
    ),
    "modprobe.search": (
        lambda x: modprobe.search({modprobe.FOLDERS[0]: x, modprobe.FOLDERS[1]: x}), st.lists(_texts), ()
    ),
    "modprobe.command_line": (modprobe.command_line, _texts, ()),
    "installs": (_installs, _texts, ()),
    "grub.choose": (_grub, _texts, (Untold,)),
    "bls.entry": (lambda x: bls.ordered([bls.entry("/x.conf", x), bls.entry(f"/{x}.conf", "")]), _texts, ()),
    "pe.sections": (lambda x: pe.sections(b"MZ" + x), _raw, (Malformed,)),
    "parameter": (lambda x: (parameter.boolean(x), parameter.integer(x)), _texts, ()),
    "modules.has": (lambda x: modules.has(x, "kvm_amd"), _texts, ()),
    "modules.depends_on": (lambda x: modules.depends_on(x, "kvm_amd"), _texts, ()),
    "modules, a hostile name": (lambda x: modules.depends_on("kernel/kvm.ko:", x), _texts, ()),
    "dropin.policy": (lambda x: dropin.policy(x, _AMD), _texts, ()),
    "drivers.read_switch": (drivers.read_switch, _texts, ()),
    "qmp.decode": (qmp.decode, _raw, (Malformed,)),
    "qmp.decode, JSON": (lambda x: qmp.decode(json.dumps(x).encode()), _json, (Malformed,)),
    "qmp.vcpu_path": (qmp.vcpu_path, _json, (Malformed,)),
    "qmp.verdict": (lambda x: qmp.verdict({"svm": x}, x, x, ["svm"]), _json, (Malformed,)),
    "qmp.verdict, words": (
        lambda x: qmp.verdict(
            {}, [], [{"cpuid-input-eax": x, "cpuid-register": "ECX", "features": x}], ["svm"]
        ),
            st.integers(), (Malformed,)
    ),
    "cpuid.names": (lambda x: cpuid.names(x, x, "EAX", x & 0xFFFFFFFF), st.integers(), ()),
    "qemu.shape": (qemu.shape, st.lists(_texts | st.sampled_from(["-m", "-smp", "-cpu", "9M"]), max_size=8),
        ()),
    "records.parse": (records.parse, _texts, (Malformed,)),
    "unitend.read": (
        lambda x: unitend.read("\n".join([x, *(json.dumps({**_UNIT_END, name: x}) for name in _UNIT_END)])),
        _texts, ()
    ),
    "records.parse, fields": (_record, st.dictionaries(_texts, _json, max_size=14), (Malformed,)),
    "request.guest_spec": (_spec, st.lists(_texts, min_size=8, max_size=8), (InvalidArgs,)),
    "words.harmless": (words.harmless, _texts, ()),
    "settings.parse": (lambda x: settings_file.parse(x, lambda line, why: None), _texts, ()),
    "pending.understood": (pending.understood, st.dictionaries(_texts, _json, max_size=6), ()),
    "pending.understood, fields": (
        lambda x: pending.understood(dict(zip(("nested", "scope", "uid", "failure"), x, strict=True))),
        st.tuples(_json, _json, _json, _json), (),
    ),
    "holders.place_of": (holders.place_of, _texts, ()),
    "holders.machine": (lambda x: holders.place_of(f"0::/machine-{x}.scope"), _texts, ()),
    "kvm.decode_cpuid": (kvm.decode_cpuid, _raw, ()),
    "units.bus_label_escape": (bus_label_escape, st.text(), ()),
    "log.clean": (log.clean, _texts, ()),
    "interface.parse": (interface.parse, st.text() | st.lists(st.sampled_from(_WORDS[36:40])).map("".join),
        (Malformed,)),
    "address.of": (lambda x: address.sockets(x, {"XDG_RUNTIME_DIR": x}), _texts, (Malformed,)),
    "sasl.answer": (sasl.answer, _raw | _raw.map(lambda x: b"OK " + x + b"\r\n" + x), (Malformed,)),
    "header.parse": (header.parse, _raw | _changed_calls, (Malformed,)),
    "message": (_frames, _raw | _changed_calls, (Malformed,)),
    "body.signature_types": (
        body.signature_types, st.text("ybnqiuxtdsogvha(){}m*", max_size=255) | st.text(), (Malformed,)
    ),
    "body.parse": (
        lambda x: body.parse(x[0], x[1], x[2]),
        st.tuples(st.text("ybnqiuxtdsogvha(){}", max_size=12) | st.sampled_from(["v", "a{sv}", "sa{sv}",
            "av"]), _raw, st.booleans()),
        (Malformed,),
    ),
}  # fmt: skip
_FUZZED = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", PARSERS)
def test_any_input(name: str) -> None:
    """A value, or the parser's own error."""
    parser, inputs, allowed = PARSERS[name]

    @seed(SEED)
    @_FUZZED
    @given(inputs)
    def play(given: Any) -> None:
        _tried(parser, given, allowed)

    with _in_time():
        play()


@pytest.mark.parametrize("piece", [*_WORDS, "a", "(", "x.service/", "\\x2d", "a=1 ", "\xff"])
def test_long_inputs(piece: str) -> None:
    """256 KiB of one thing: bounded time for all that read a file or a line of somebody's."""
    text = piece * (_LONG // len(piece))
    for name in LONG:
        with _in_time():
            _tried(PARSERS[name][0], text, PARSERS[name][2])
    raw = text.encode("utf-8", "surrogateescape")
    for name in ("qmp.decode", "sasl.answer", "kvm.decode_cpuid", "message"):
        with _in_time():
            _tried(PARSERS[name][0], raw, PARSERS[name][2])


LONG = (
    "cmdline.parse", "cpuinfo", "modprobe.parse", "modules.has", "modules.depends_on", "dropin.policy",
    "drivers.read_switch", "modprobe.command_line", "installs", "grub.choose", "bls.entry", "parameter",
    "records.parse", "words.harmless", "holders.place_of", "holders.machine", "log.clean", "address.of",
)  # fmt: skip


def _tried(parser: Callable[[Any], object], given: Any, allowed: tuple[type[Exception], ...]) -> None:
    try:
        parser(given)
    except allowed as error:
        assert str(error), "an error says what is wrong"


@contextmanager
def _in_time() -> Iterator[None]:
    """Fail what takes too much processor time, by hanging too."""

    def over(_: int, __: FrameType | None) -> None:
        raise AssertionError(f"more than {_SECONDS} s of processor time")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS if EXAMPLES <= 1000 else 3600)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
