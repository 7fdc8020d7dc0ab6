# SPDX-License-Identifier: LGPL-2.1-or-later
"""Accounts, as the machine has them."""

from __future__ import annotations

import pytest

from nestd.host.accounts import Account, Accounts


def test_the_account_that_every_machine_has() -> None:
    accounts = Accounts()
    assert accounts.by_name("root") == accounts.by_uid(0) == Account("root", 0, 0)
    assert accounts.has_group("root")


@pytest.mark.parametrize("name", ["", "no such user", "a\0b", "x" * 5000, "\udcff"])
def test_names_without_an_account(name: str) -> None:
    assert Accounts().by_name(name) is None
    assert not Accounts().has_group(name)


@pytest.mark.parametrize("uid", [-2, 1 << 32, 4_000_000_123])
def test_numbers_without_an_account(uid: int) -> None:
    assert Accounts().by_uid(uid) is None
