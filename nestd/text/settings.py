# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd.conf(5): sections, and keys with values, as systemd writes such files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

# Stands for any file, by its absolute path.
FILE = "FILE"
# What may be said: section, key, values; the first value is what holds where nothing is said.
KEYS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Nesting": {"Enforce": ("no", "when-idle")},
    "Boot": {"Loader": ("auto", "grub", "grubby", "kernel-install", "rpm-ostree", "ostree", "bootc")},
    "Export": {"PrometheusTextfile": ("none", FILE), "NodeFeatureFile": ("none", FILE)},
}
# What the names of such files have to end with: node_exporter reads no others.
_ENDINGS = {"PrometheusTextfile": ".prom"}


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
            elif wrong := _wrong(key, value, values):
                complain(number, f"{key}= takes {wrong}")
            else:
                found[key] = value
    return found


def _wrong(key: str, value: str, values: tuple[str, ...]) -> str:
    """What the key takes, and that it is not this value, as a clause; empty if it is."""
    if FILE not in values:
        return "" if value in values else f"{', '.join(values[:-1])} or {values[-1]}, not {value!r}"
    takes = f"{values[0]} or the absolute path of a file"
    ending = _ENDINGS.get(key, "")
    name = value.rpartition("/")[2]
    if value == values[0]:
        return ""
    if not name or value[0] != "/" or "\0" in value or {"..", "."} & set(value.split("/")):
        return f"{takes}, not {value!r}"
    if name[0] == "." or not name.endswith(ending):
        and_ends = f" and ends with {ending}" if ending else ""
        return f"{takes} whose name is not hidden{and_ends}, not {value!r}"
    return ""
