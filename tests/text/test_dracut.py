# SPDX-License-Identifier: LGPL-2.1-or-later
"""dracut.conf, as far as it tells whether /etc/modprobe.d comes into an initramfs."""

from __future__ import annotations

import pytest

from nestd.text.dracut import Settings, hostonly_by_default, settings


@pytest.mark.parametrize(
    ("texts", "hostonly", "items"),
    [
        ((), None, ()),
        (("# hostonly=yes\n",), None, ()),
        (('hostonly="yes"\n', "\t hostonly=no # here\n"), False, ()),
        (("hostonly='yes'\nhostonly_cmdline=no\nhostonly_mode=strict\n",), True, ()),
        (("hostonly=",), False, ()),
        (('install_items+=" /a /b/*.conf "\n', "install_items+=/c"), None, ("/a", "/b/*.conf", "/c")),
        (("install_items+=/a\ninstall_items=/b\n",), None, ("/b",)),
        (("install_optional_items+=/a\ninstall_items=/b\n",), None, ("/a", "/b")),
        (("\0\udcff hostonly=\ninstall_items",), None, ()),
    ],
)
def test_settings(texts: tuple[str, ...], hostonly: bool | None, items: tuple[str, ...]) -> None:
    assert settings(texts) == Settings(hostonly, items)


@pytest.mark.parametrize(
    ("version", "hostonly"),
    [
        ("DRACUT_VERSION=059-4\n", False),
        ("#!/bin/sh\n# x\nDRACUT_VERSION=108-1.fc43\n", False),
        ("DRACUT_VERSION='109'\n", True),
        ("DRACUT_VERSION=111", True),
        ("DRACUT_VERSION=\n", None),
        ("", None),
    ],
)
def test_the_mode_that_nobody_chose(version: str, hostonly: bool | None) -> None:
    assert hostonly_by_default(version) is hostonly
