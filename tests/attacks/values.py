# SPDX-License-Identifier: LGPL-2.1-or-later
"""Values for a D-Bus signature: ordinary ones, those at the limits, and what somebody evil would send."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from nestd.bus.boundary import LOADERS
from nestd.wire.library import SignatureType, Variant

# What has broken other services: terminals, shells, paths, unit names, QEMU's commas, formats, long words.
HOSTILE = (
    "", " ", "\n", "\x1b[31m\x07", "\x7f", "\u202e", "\ufeff", "\U0010ffff", "a\nb", "-", "--help", "-x",
    "..", "../../etc/passwd", "/etc/passwd", "/../../x", "/etc/modprobe.d/zz-nestd.conf", "//", "/dev/kvm",
    "/proc/self/mem", "x.service", "nestd-guest-x.service", "demo.service", "a@b", "%i%n%H", "$(reboot)",
    "`id`", "${PATH}", "$$",
    "x,file=/etc/shadow", "host,-svm", "x,,y", "a=b", "{}", "%s%n", "{0.__class__}", "\\x2d", "_2e_2e",
    "x" * 40, "x" * 41, "x" * 255, "x" * 5000, "ü" * 200, "x" * 70_000, "'; DROP TABLE guests; --", "null",
    "0", "NaN",
)  # fmt: skip
# Words that mean something here, so that what lies behind the first check is reached too.
KNOWN = (
    "demo", "a", "both", "runtime", "boot", "grub", "kernel-install", "bootc",
    "host", "qemu64", "max", "+svm", "-svm", "+vmx", "raw", "qcow2",
    "uefi", "vnc", "user", "lab", "tcp:127.0.0.1:2222-22", "udp:0.0.0.0:65535-1",
    "nobody", "root",
    "org.nestd1.Manager", "org.nestd1.Guest", "org.nestd1.Lab", "10.7.0.0/28",
    "org.freedesktop.DBus.Peer", "Nested", "Version", "Owner",
    "/", "/vmlinuz",
)  # fmt: skip
OPTIONS = (
    "scope", "dry-run", "when-idle", "replace", "loader", "timeout",
    "cpu", "cpu-features", "memory", "vcpus", "disks", "kernel", "initrd", "append", "user",
    "require-nesting", "cdrom", "firmware", "network", "kind", "forwards", "lab", "display", "user-data",
    "extra-args", "nodes", "subnet", "path", "format", "readonly", "snapshot",
)  # fmt: skip
_BITS = {
    "y": (0, 8),
    "n": (1, 16),
    "q": (0, 16),
    "i": (1, 32),
    "u": (0, 32),
    "x": (1, 64),
    "t": (0, 64),
    "h": (0, 2),
}
_SIGNATURES = (
    "s", "b", "u", "i", "t", "d", "y", "n", "q", "x", "o", "g", "v", "as", "ay", "a{sv}", "aa{sv}", "(sv)",
    "a(sasb)",
    "aav", "a{ss}", "a{uv}", "av", "((((s))))", "aaaaas",
)  # fmt: skip
_LEAVES = ("s", "b", "u", "t", "d", "as", "o", "g")

texts = st.sampled_from(KNOWN) | st.sampled_from(HOSTILE) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60
)  # fmt: skip
paths = st.sampled_from(
    ["/", "/org", "/org/nestd1", "/org/nestd1/job", "/org/nestd1/job/1",
        "/org/nestd1/lab", "/org/nestd1/lab/town",
        "/org/nestd1/guest", "/org/nestd1/guest/demo", "/org/nestd1/guest/_2e_2e",
        "/a" * 120]
) | st.text("abcdefxyz019_", min_size=1, max_size=20).map(lambda x: f"/org/nestd1/guest/{x}")  # fmt: skip


def value(kind: SignatureType, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of a type, as nestd.wire.message takes them; variants hold one another three deep."""
    code = kind.token
    if code in _BITS:
        signed, bits = _BITS[code]
        least, most = -(signed << (bits - 1)), (1 << (bits - signed)) - 1
        return st.sampled_from([0, 1, most, least, min(most, 86_401), min(most, 16 << 20)]) | st.integers(
            least, most
        )
    if code == "a":
        return _array(kind.children[0], depth)
    if code == "(":
        return st.tuples(*(value(child, depth) for child in kind.children)).map(list)
    if code == "v":
        return st.sampled_from(_SIGNATURES if depth < 3 else _LEAVES).flatmap(lambda x: variant(x, depth + 1))
    if code == "d":
        return st.floats()
    return {"s": texts, "o": paths, "g": st.sampled_from(["", *_SIGNATURES]), "b": st.booleans()}[code]


def variant(signature: str, depth: int = 0) -> st.SearchStrategy[Variant]:
    """Variants of that signature."""
    [kind] = types(signature)
    return value(kind, depth).map(lambda inner: Variant(signature, inner))


def types(signature: str) -> list[SignatureType]:
    """The complete types of a signature."""
    from nestd.wire.body import signature_types

    return signature_types(signature)


def body(signature: str) -> st.SearchStrategy[list[Any]]:
    """All arguments for a signature."""
    return st.tuples(*(value(kind) for kind in types(signature))).map(list)


def change() -> st.SearchStrategy[list[Any]]:
    """Arguments of Enable and Disable that are as they should be, or nearly."""
    scopes = st.sampled_from(["both", "runtime", "boot"]).map(lambda x: Variant("s", x))
    flags = st.booleans().map(lambda x: Variant("b", x))
    loaders = st.sampled_from(LOADERS).map(lambda x: Variant("s", x))
    known = {"scope": scopes, "dry-run": flags, "when-idle": flags, "replace": flags, "loader": loaders}
    return st.fixed_dictionaries({}, optional=known).map(lambda x: [x])


def _array(child: SignatureType, depth: int) -> st.SearchStrategy[Any]:
    if child.token == "y":
        return st.binary(max_size=100)
    if child.token != "{":
        return st.lists(value(child, depth), max_size=4)
    key, inner = child.children
    if key.token != "s":
        return st.dictionaries(value(key, depth), value(inner, depth), max_size=4)
    keys = st.sampled_from(OPTIONS) | texts
    if inner.token != "v":
        return st.dictionaries(keys, value(inner, depth), max_size=4)
    return st.lists(st.one_of(_option(), st.tuples(keys, value(inner, depth))), max_size=4).map(dict)


def _option() -> st.SearchStrategy[tuple[str, Variant]]:
    """A known option with the type that it must have, and any value."""
    from nestd.guests.devices import DISK_OPTIONS, NETWORK_OPTIONS
    from nestd.guests.request import OPTIONS

    own = {
        "nodes": "u",
        "subnet": "s",
        "scope": "s",
        "dry-run": "b",
        "when-idle": "b",
        "replace": "b",
        "loader": "s",
        "timeout": "t",
    }
    table = {**OPTIONS, **DISK_OPTIONS, **NETWORK_OPTIONS, **own}
    # Verify's is of another type than Stop's.
    pairs = [*sorted(table.items()), ("timeout", "u")]
    return st.sampled_from(pairs).flatmap(lambda x: st.tuples(st.just(x[0]), variant(x[1], 2)))
