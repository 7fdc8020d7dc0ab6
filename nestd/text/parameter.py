# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel makes of a module parameter's value (lib/kstrtox.c, kernel/params.c)."""

from __future__ import annotations

_LONGEST = 64  # characters; beyond these no int has any but leading zeros
_DIGITS = {8: "01234567", 10: "0123456789", 16: "0123456789abcdefABCDEF"}
_LEAST, _MOST = -(1 << 31), (1 << 31) - 1


def boolean(value: str | None) -> bool | None:
    """A bool as kstrtobool reads it, by its first letters; no value means yes. None: EINVAL."""
    if value is None:
        return True
    if value[:1] in {"y", "Y", "t", "T", "1"} and value:
        return True
    if value[:1] in {"n", "N", "f", "F", "0"} and value:
        return False
    return {"on": True, "of": False}.get(value[:2].lower())


def integer(value: str | None) -> int | None:
    """An int as kstrtoint reads it with base 0. None: EINVAL (no value, too), or ERANGE."""
    if value is None or len(value) > _LONGEST:
        return None
    digits = value.removesuffix("\n")
    negative = digits.startswith("-")
    digits = digits[1:] if digits[:1] in {"-", "+"} else digits
    base = 8 if digits.startswith("0") else 10
    if digits[:2] in {"0x", "0X"}:
        base, digits = 16, digits[2:]
    if not digits or not set(digits) <= set(_DIGITS[base]):
        return None
    number = int(digits, base) * (-1 if negative else 1)
    return number if _LEAST <= number <= _MOST else None
