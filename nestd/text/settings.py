# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd.conf(5): sections, and keys with values, as systemd writes such files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

# What may be said: section, key, values; the first value is what holds where nothing is said.
KEYS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Nesting": {"Enforce": ("no", "when-idle")},
    "Boot": {"Loader": ("auto", "grub", "grubby", "kernel-install", "rpm-ostree", "ostree", "bootc")},
}


def defaults() -> dict[str, str]:
    """Every key with what holds where nothing is said."""
    return {key: values[0] for keys in KEYS.values() for key, values in keys.items()}


def parse(text: str, complain: Callable[[int, str], None]) -> dict[str, str]:
    """What a file sets. `complain` gets the number of each line that does not count, and why, as a clause."""
    found = {}
    section = ""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            section = line[1:-1]
            if section not in KEYS:
                complain(number, f"there is no section [{section}], so nothing in it counts")
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            complain(number, f"{line!r} is neither a section nor KEY=VALUE")
        elif not section:
            complain(number, f"{key}= stands before the first section")
        elif section in KEYS:
            values = KEYS[section].get(key)
            if values is None:
                complain(number, f"there is no {key}= in [{section}]; there is {', '.join(KEYS[section])}")
            elif value not in values:
                choice = f"{', '.join(values[:-1])} or {values[-1]}"
                complain(number, f"{key}= takes {choice}, not {value!r}")
            else:
                found[key] = value
    return found
