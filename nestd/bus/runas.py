# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose a guest is: the caller's own account, unless root says otherwise."""

from nestd import errors, tasks
from nestd.bus.exported import Call
from nestd.bus.polkit import Authority
from nestd.host.accounts import Accounts

# The account that QEMU runs as when root launches a guest and names no other.
SYSTEM_ACCOUNT = "nestd"


class RunAs:
    """Looks callers' accounts up."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._accounts = Accounts()

    async def account(self, wished: str, call: Call) -> str:
        """The account's name; `wished` is root's option user, or "". AccessDenied, InvalidArgs."""
        uid = await self._authority.uid_of(call.sender)
        if uid == 0:
            return wished or SYSTEM_ACCOUNT
        account = await tasks.to_thread(self._accounts.by_uid, uid)
        if account is None:
            raise errors.InvalidArgs(
                f"There is no account with the user id {uid}, which asks: no guest can run as it."
            )
        return account.name
