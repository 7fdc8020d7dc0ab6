# SPDX-License-Identifier: LGPL-2.1-or-later
"""What ostree will boot: the deployment that is staged, else the first of its boot loader entries. Read-only.

Sources: ostree-admin-deploy(1), ostree-finalize-staged.service; ostree's
src/libostree/ostree-sysroot-deploy.c.
"""

from __future__ import annotations

import functools

from nestd.host import systemdboot
from nestd.host.bootloader import OSTREE_STAGED
from nestd.host.root import Root
from nestd.text import bls, staged

BOOTED = "/run/ostree-booted"
STAGED, LOCKED = OSTREE_STAGED
ENTRIES = "/boot/loader/entries"


def pending(root: Root) -> staged.Staged | None:
    """The deployment that the shutdown makes the default; None: there is none. Raises OSError, Malformed.

    Its boot loader entry is written only then (ostree-finalize-staged.service).
    """
    text = root.read(STAGED)
    if text is None:
        return None
    found = staged.parse(text.encode("utf-8", "surrogateescape"))
    return None if found.locked or root.exists(LOCKED) else found


def default(root: Root) -> bls.Entry | None:
    """The entry of the first deployment that is not staged; None: ostree has written none. Raises OSError."""
    found = [one for one in systemdboot.entries(root, "/boot") if one.id.startswith("ostree-")]
    # "version" counts down from the number of deployments, so that the first one sorts first.
    key = functools.cmp_to_key(bls.compare)
    return max(found, key=lambda one: key(one.version), default=None)


def options(root: Root) -> tuple[str, str] | None:
    """The next boot's kernel arguments and the file that they are in; None: not to be found. As above."""
    if found := pending(root):
        return " ".join(found.words), STAGED
    entry = default(root)
    return (entry.options, f"{entry.path}:{entry.line}") if entry else None
