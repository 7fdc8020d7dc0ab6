#!/usr/bin/python3 -IS
# SPDX-License-Identifier: LGPL-2.1-or-later
"""`rpm-ostree kargs`, `rpm-ostree status --json` and `bootc loader-entries`, acting on the tree they lie in.

Copied into TREE/.kernel/bin under either name. Both stage a deployment: its arguments go into
/run/ostree/staged-deployment, as ostree writes that file; `finalize` (a name of this fake's own) does what
ostree-finalize-staged.service does at shutdown. TREE/.kernel/transaction: what rpm-ostree is busy with;
TREE/.kernel/old-bootc: bootc has no loader-entries.

Sources: rpm-ostree at d5ef5f0c, src/app/rpmostree-builtin-kargs.cxx,
src/daemon/rpmostreed-transaction-types.cxx (kernel_arg_apply_patching), rpmostreed-sysroot.cxx (the words
when it is busy); bootc at 534c76ea, crates/lib/src/loader_entries.rs (compute_merged_options,
set_options_for_source_staged) and its man page; clap's exit status 2 for what it does not know; ostree's
ostree_kernel_args_delete.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import NoReturn

NAME = Path(sys.argv[0]).name
TOP = Path(sys.argv[0]).parents[2]
KERNEL, STAGED = TOP / ".kernel", TOP / "run/ostree/staged-deployment"
ENTRIES = TOP / "boot/loader/entries"
SOURCE = "x-options-source-"


def fail(words: str, code: int = 1) -> NoReturn:
    print(f"error: {words}", file=sys.stderr)
    sys.exit(code)


# GVariant, in this machine's byte order.


def container(parts: list[bytes], alignment: int) -> bytes:
    body, ends = b"", []
    for part in parts:
        body += b"\0" * (-len(body) % alignment) + part
        ends.append(len(body))
    return body + offsets(body, ends)


def offsets(body: bytes, ends: list[int]) -> bytes:
    width = next(width for width in (1, 2, 4) if len(body) + width * len(ends) < 1 << 8 * width)
    return b"".join(end.to_bytes(width, sys.byteorder) for end in ends)


def entry(key: str, value: bytes, alignment: int) -> bytes:
    body = key.encode() + b"\0"
    end = len(body)
    body += b"\0" * (-end % alignment) + value
    return body + offsets(body, [end])


def strings(words: list[str]) -> bytes:
    return container([word.encode() + b"\0" for word in words], 1)


def dictionary(items: dict[str, tuple[bytes, str]]) -> bytes:
    return container(
        [entry(key, value + b"\0" + kind.encode(), 8) for key, (value, kind) in items.items()], 8
    )


def stage(words: list[str], sources: dict[str, str]) -> None:
    target = {
        "name": (b"0123.1\0", "s"),
        "osname": (b"fedora\0", "s"),
        "bootcsum": (b"4567\0", "s"),
    }
    extra = container([entry(SOURCE + key, text.encode() + b"\0", 1) for key, text in sources.items()], 1)
    said = {"target": (dictionary(target), "a{sv}"), "kargs": (strings(words), "as")}
    if sources:
        said["bootconfig-extra"] = (extra, "a{ss}")
    STAGED.parent.mkdir(exist_ok=True)
    STAGED.write_bytes(dictionary(said))
    (KERNEL / "staged").write_text(json.dumps([words, sources]))
    with (KERNEL / "stagings").open("a") as file:
        file.write(" ".join(words) + "\n")


def current() -> tuple[list[str], dict[str, str]]:
    """The arguments of the pending deployment, and of each source."""
    if (KERNEL / "staged").exists():
        words, sources = json.loads((KERNEL / "staged").read_text())
        return words, sources
    newest = max(ENTRIES.glob("ostree-*.conf"))
    rows = [row.partition(" ") for row in newest.read_text().splitlines()]
    sources = {
        key.removeprefix(SOURCE): text for key, _, text in rows if key.startswith(SOURCE) and text.strip()
    }
    return next(text for key, _, text in rows if key == "options").split(), sources


def finalize() -> None:
    words, sources = current()
    STAGED.unlink()
    (KERNEL / "staged").unlink()
    newest = max(ENTRIES.glob("ostree-*.conf"))
    rows = [row for row in newest.read_text().splitlines() if not row.startswith(("options ", SOURCE))]
    rows += [f"options {' '.join(words)}", *(f"{SOURCE}{key} {text}" for key, text in sources.items())]
    newest.write_text("\n".join(rows) + "\n")


def delete(words: list[str], one: str) -> None:
    name = one.partition("=")[0]
    if one not in words:
        fail(f"No {'karg' if '=' in one else 'key'} '{one}' found" if name else "")
    words.remove(one)


def rpm_ostree(arguments: list[str]) -> None:
    busy = (KERNEL / "transaction").read_text() if (KERNEL / "transaction").exists() else ""
    if arguments == ["status", "--json"]:
        print(json.dumps({"deployments": [], "transaction": [busy, ":1.7", "/"] if busy else None}))
        return
    if arguments[:1] != ["kargs"]:
        fail(f"Unknown command '{arguments[0]}'")
    words, sources = current()
    if arguments == ["kargs"]:
        print(" ".join(words))
        return
    if busy:
        fail(
            f"Transaction in progress: {busy}\n"
            " You can cancel the current transaction with `rpm-ostree cancel`"
        )
    existing = list(words)
    given = [option.partition("=")[::2] for option in arguments[1:]]
    for word in [text for option, text in given if option == "--append-if-missing"]:
        if word not in words:
            words.append(word)
    for word in [text for option, text in given if option == "--delete-if-present"]:
        if word in existing:
            delete(words, word)
    if sorted(words) == sorted(existing):
        print("No changes.")
        return
    stage(words, sources)
    print('Changes queued for next boot. Run "systemctl reboot" to start a reboot')


def bootc(arguments: list[str]) -> None:
    if arguments[:1] != ["loader-entries"] or (KERNEL / "old-bootc").exists():
        fail(f"unrecognized subcommand '{arguments[0]}'", 2)
    if arguments[1:] == ["--help"]:
        print(
            "Operations on Boot Loader Specification (BLS) entries\n\nUsage: bootc loader-entries <COMMAND>\n"
        )
        print(
            "Commands:\n"
            "  set-options-for-source  Set or update the kernel arguments owned by a specific source"
        )
        return
    given = dict(zip(arguments[2::2], arguments[3::2], strict=True))
    if arguments[1] != "set-options-for-source" or not {"--source"} <= set(given) <= {
        "--source",
        "--options",
    }:
        fail("the following required arguments were not provided:\n  --source <SOURCE>", 2)
    source, new = given["--source"], given.get("--options")
    if not re.fullmatch("[A-Za-z0-9_-]+", source):
        fail("Source name must contain only alphanumeric characters, hyphens, or underscores")
    words, sources = current()
    merged = [word for word in words if word not in sources.get(source, "").split()]
    merged += [word for word in (new or "").split() if word not in merged]
    if merged == words and (sources.get(source) == new or (source not in sources and not new)):
        return
    sources.pop(source, None)
    stage(merged, {**sources, source: new} if new is not None else sources)


if __name__ == "__main__":
    if NAME == "rpm-ostree":
        rpm_ostree(sys.argv[1:])
    elif NAME == "bootc":
        bootc(sys.argv[1:])
    else:
        finalize()
