# SPDX-License-Identifier: LGPL-2.1-or-later
"""dracut.conf(5): whether dracut copies /etc/modprobe.d into an initramfs.

It does in host-only mode; otherwise only what its configuration names (modules.d/*base or *kernel-modules,
module-setup.sh: install). The mode that nobody chose is host-only since release 109 (dracut.sh).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_ASSIGNMENT = r"""^[ \t]*(hostonly|install_items|install_optional_items)(\+?)=(?:"([^"]*)"|'([^']*)'|(\S*))"""
_HOSTONLY_SINCE = 109


class Settings(NamedTuple):
    """`hostonly`: None if it is not said. `items` are the files, or patterns, that are installed besides."""

    hostonly: bool | None
    items: tuple[str, ...]


def settings(texts: Iterable[str]) -> Settings:
    """What the files say, in their order. They are pieces of shell: only plain assignments are understood."""
    hostonly: bool | None = None
    items: dict[str, list[str]] = {}
    for text in texts:
        for name, more, *values in re.findall(_ASSIGNMENT, text, re.MULTILINE):
            value = "".join(values)
            if name == "hostonly":
                hostonly = value == "yes"
            else:
                items[name] = [*(items.get(name, []) if more else []), *value.split()]
    return Settings(hostonly, tuple(one for listed in items.values() for one in listed))


def hostonly_by_default(version: str) -> bool | None:
    """Whether that version (the text of dracut-version.sh) is host-only by itself; None: not known."""
    match = re.search(r"^DRACUT_VERSION=[\"']?0*(\d+)", version, re.MULTILINE)
    return int(match[1]) >= _HOSTONLY_SINCE if match else None
