# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program that takes QEMU's arguments and speaks QMP, for tests; `install` puts it on a PATH.

It stands alone (copied to where any user may read it) and behaves as its first argument says.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import sys
from contextlib import suppress
from enum import StrEnum
from itertools import pairwise
from pathlib import Path


class Manner(StrEnum):
    """How it behaves: like QEMU on a host with svm, but for what the name says."""

    GOOD = "good"
    DROPS_THE_FLAG = "drops-the-flag"
    DIES = "dies"
    DIES_LATER = "dies-later"  # in the middle of the first exchange
    DIES_WHEN_IT_RUNS = "dies-when-it-runs"
    SAYS_NOTHING = "says-nothing"
    LISTENS_OTHERWISE = "listens-otherwise"  # at a socket that no stream connects to
    BABBLES = "babbles"
    IGNORES_THE_BUTTON = "ignores-the-button"
    IGNORES_SIGTERM = "ignores-sigterm"  # and the button


# What a vCPU has, as QEMU 7.2 tells it of `max` and `qemu64` under TCG (words without a bit are left out):
# `host` is made as `max` is, and here every named model is qemu64.
_MAX = {
    (0xD, 0, "EAX"): 543,
    (6, None, "EAX"): 4,
    (0xD, 1, "EAX"): 5,
    (0x8000000A, None, "EDX"): 0x10010001,
    (0x80000001, None, "ECX"): 0x75,
    (0x80000001, None, "EDX"): 0xEDD3FBFD,
    (7, 0, "ECX"): 0x8001020C,
    (7, 0, "EBX"): 0x1D843A9,
    (1, None, "ECX"): 0xF6D8320B,
    (1, None, "EDX"): 0xFCBFBFD,
}
_QEMU64 = {
    (0xD, 0, "EAX"): 0,
    (0x8000000A, None, "EDX"): 0,
    (0x80000001, None, "ECX"): 1,
    (0x80000001, None, "EDX"): 0x2193FBFD,
    (7, 0, "EBX"): 0,
    (1, None, "ECX"): 0x80002001,
    (1, None, "EDX"): 0x78BFBFD,
}
_SVM_WORD, _SVM = (0x80000001, None, "ECX"), 1 << 2
_SVM_LEAF = (0x8000000A, None, "EDX")

WORDS = "qemu-system-x86_64: \x1b[31m-kernel /nowhere: could not open\x07 it\n"


def install(folder: Path, manner: Manner) -> None:
    """Make `folder`/qemu-system-x86_64."""
    folder.mkdir(exist_ok=True)
    shutil.copy(__file__, folder / "fakeqemu.py")
    shutil.copy(Path(__file__).with_name("fakehub.py"), folder)
    program = folder / "qemu-system-x86_64"
    python = Path(sys.executable).resolve()
    hub = f'case " $* " in *" -machine none "*) exec {python} -I {folder}/fakehub.py "$@" ;; esac'
    program.write_text(f'#!/bin/sh\n{hub}\nexec {python} -I {folder}/fakeqemu.py {manner} "$@"\n')
    program.chmod(0o755)


def _main(manner: Manner, argv: list[str]) -> int:
    options = dict(pairwise(argv))
    chardevs = dict(_chardev(value) for name, value in pairwise(argv) if name == "-chardev")
    if manner is Manner.DIES:
        sys.stderr.write("a line before it\n" + WORDS)
        return 1
    if manner is Manner.IGNORES_SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(chardevs["console"]["logfile"]).write_bytes(b"")
    if manner is Manner.LISTENS_OTHERWISE:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(chardevs["qmp"]["path"])
            signal.pause()
    # The guest of Verify is known by its initramfs; what others boot says hello.
    proves = "/run/nestd/probe/" in options.get("-initrd", "")
    with _listen(chardevs["console"]["path"]) as console, _listen(chardevs["qmp"]["path"]) as server:
        guest = _Guest(manner, options["-cpu"], chardevs["console"]["logfile"], paused="-S" in argv)
        guest.proves = proves
        guest.console = _Console(console)
        while guest.on:
            connection, _ = server.accept()
            # Whoever leaves in the middle of a word ends no QEMU.
            with suppress(ConnectionError), connection, connection.makefile("rwb") as stream:
                guest.serve(stream)
    return 0


class _Console:
    """One client at a time, the next waits in the queue; nobody hears what they say."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._client: socket.socket | None = None
        server.setblocking(False)

    def described(self) -> dict[str, object]:
        """As `query-chardev` has it; here is where those who leave and come are noticed."""
        with suppress(BlockingIOError):
            while self._client is None or self._left(self._client):
                self._client = None
                self._client = self._server.accept()[0]
        name = f"{'' if self._client else 'disconnected:'}unix:{self._server.getsockname()},server=on"
        return {"label": "console", "filename": name, "frontend-open": True}

    @staticmethod
    def _left(client: socket.socket) -> bool:
        if not select.select([client], [], [], 0)[0] or client.recv(1 << 16):
            return False
        client.close()
        return True


class _Guest:
    console: _Console

    def __init__(self, manner: Manner, cpu: str, log: str, paused: bool) -> None:
        self.on = True
        self.proves = False
        self._manner = manner
        self._log = log
        self._status = "prelaunch" if paused else "running"
        model, *features = cpu.split(",")
        host = model == "host"
        asked = (host or "+svm" in features) and "-svm" not in features
        self._svm = asked and manner is not Manner.DROPS_THE_FLAG
        self._has = dict(_MAX if host else _QEMU64)
        self._has[_SVM_WORD] = self._has[_SVM_WORD] & ~_SVM | _SVM * self._svm
        if not self._svm:
            self._has[_SVM_LEAF] = 0
        # `host` asks for nothing that KVM does not have.
        self._filtered = dict.fromkeys(self._has, 0) | {
            _SVM_WORD: _SVM * (asked and not self._svm and not host)
        }

    def serve(self, stream) -> None:  # type: ignore[no-untyped-def]  # makefile's type has no name
        if self._manner is Manner.SAYS_NOTHING:
            stream.read()
            return
        if self._manner is Manner.BABBLES:
            stream.write(b'{"QMP": ' + b"[" * 100_000 + b"\n")
            stream.flush()
            return
        _send(stream, {"QMP": {"version": {}, "capabilities": ["oob"]}})
        for line in stream:
            request = json.loads(line)
            _send(stream, {"event": "RTC_CHANGE", "data": {"offset": 1}})
            if self._manner is Manner.DIES_LATER and request["execute"] == "query-cpus-fast":
                sys.stderr.write(WORDS)
                sys.stderr.flush()
                os._exit(1)
            _send(stream, {**self._answer(request), "id": request["id"]})
            if self._manner is Manner.DIES_WHEN_IT_RUNS and self._status == "running":
                sys.stderr.write(WORDS)
                sys.stderr.flush()
                os._exit(1)
            if not self.on:
                return

    def _answer(self, request: dict[str, object]) -> dict[str, object]:
        match request:
            case {"execute": "query-cpus-fast"}:
                return {"return": [{"cpu-index": 0, "qom-path": "/machine/unattached/device[0]"}]}
            case {"execute": "query-status"}:
                return {"return": {"status": self._status, "running": self._status == "running"}}
            case {"execute": "qom-get", "arguments": {"property": "svm"}}:
                return {"return": self._svm}
            case {"execute": "qom-get", "arguments": {"property": "filtered-features"}}:
                return {"return": _words(self._filtered)}
            case {"execute": "qom-get", "arguments": {"property": "feature-words"}}:
                return {"return": _words(self._has)}
            case {"execute": "query-chardev"}:
                monitor = {"label": "qmp", "filename": "unix:qmp,server=on", "frontend-open": True}
                return {"return": [monitor, self.console.described()]}
            case {"execute": "cont"}:
                self._status = "running"
                said = _proof(self._svm) if self.proves else "hello from the guest\n"
                Path(self._log).write_bytes(said.replace("\n", "\r\n").encode())
            case {"execute": "system_powerdown"}:
                self.on = self._manner in {Manner.IGNORES_THE_BUTTON, Manner.IGNORES_SIGTERM}
                if not self.on:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # QEMU ends well from here on
            case {"execute": "qom-get"}:
                return {"error": {"class": "GenericError", "desc": "Property not found"}}
        return {"return": {}}


def _words(words: dict[tuple[int, int | None, str], int]) -> list[dict[str, object]]:
    """CPUID words as QEMU writes them: the subleaf only where the leaf has any."""
    told: list[dict[str, object]] = []
    for (leaf, subleaf, register), mask in words.items():
        told.append({"cpuid-register": register, "cpuid-input-eax": leaf, "features": mask})
        if subleaf is not None:
            told[-1]["cpuid-input-ecx"] = subleaf
    return told


def _proof(svm: bool) -> str:
    """What nestd's guests/probe/inside.py tells on its console, with and without the extension."""
    told: list[dict[str, object]] = [{"extension": svm, "flags": ["fpu", "svm", "npt"] if svm else ["fpu"]}]
    if svm:
        spread = {"median": 12000.5, "low": 11000.0, "high": 13000.0, "rounds": 40, "exits": 64}
        told += [{"loaded": True, "words": ""}, {"api": 12}, {"created": True}, {"ran": True}]
        told += [{"kernel": spread}, {"user": {**spread, "median": 20000.0}}]
        told += [{"log": ["kvm_amd: Nested Virtualization enabled"]}]
    else:
        told += [{"loaded": False, "words": "insmod: Operation not supported"}, {"log": []}]
    return "".join(f"nestd-probe {json.dumps(one)} .\n" for one in [*told, {"end": True}])


def _chardev(value: str) -> tuple[str, dict[str, str]]:
    kind, *pairs = value.split(",")
    assert kind == "socket"
    fields = dict(pair.split("=", 1) for pair in pairs)
    return fields["id"], fields


def _listen(path: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(1)
    return server


def _send(stream, message: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    stream.write(json.dumps(message).encode() + b"\r\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(_main(Manner(sys.argv[1]), sys.argv[2:]))
