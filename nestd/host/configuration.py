# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd's own configuration: /etc/nestd/nestd.conf, then /etc/nestd/nestd.conf.d/*.conf by their names."""

from __future__ import annotations

from nestd import log
from nestd.host.root import Root

FILE = "/etc/nestd/nestd.conf"
FOLDER = f"{FILE}.d"


def enforced(root: Root) -> bool:
    """Whether Enforce= says that what was told is put back (nestd.conf(5)). What is wrong is logged."""
    try:
        named = [f"{FOLDER}/{name}" for name in root.files(FOLDER) if name.endswith(".conf")]
        texts = [(path, text) for path in (FILE, *named) if (text := root.read(path)) is not None]
    except OSError as failure:
        log.warning(f"nestd's configuration cannot be read, so it does not count: {failure}")
        return False
    if not texts:
        return False
    from nestd.text import settings  # noqa: PLC0415 -- most machines have no such file

    found = settings.defaults()
    for path, text in texts:

        def complain(line: int, why: str, path: str = path) -> None:
            log.warning(f"{path}:{line}: {why}. The line is left out; see nestd.conf(5).")

        found |= settings.parse(text, complain)
    return found["Enforce"] != "no"
