# SPDX-License-Identifier: LGPL-2.1-or-later
"""Users and groups of the machine (getpwnam(3), getgrnam(3): whatever nsswitch.conf knows)."""

import grp
import pwd
from typing import NamedTuple


class Account(NamedTuple):
    """A user: `gid` is the primary group's."""

    name: str
    uid: int
    gid: int


class Accounts:
    """The machine's own accounts. A network directory may take a while to answer."""

    def by_name(self, name: str) -> Account | None:
        """The account of that name, if there is one."""
        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError):  # ValueError: a name with a NUL
            return None
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def by_uid(self, uid: int) -> Account | None:
        """The account of that uid, if there is one."""
        try:
            entry = pwd.getpwuid(uid)
        except (KeyError, OverflowError):
            return None
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def has_group(self, name: str) -> bool:
        """Whether there is a group of that name."""
        try:
            grp.getgrnam(name)
        except (KeyError, ValueError):
            return False
        return True
