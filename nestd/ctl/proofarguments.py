# SPDX-License-Identifier: LGPL-2.1-or-later
"""The options of `nestctl verify`, `measure` and `cpu`."""

from __future__ import annotations

import argparse

from .argumenttypes import seconds, word
from .launcharguments import add_cpu


def add_verify(part: argparse.ArgumentParser) -> None:
    """Which CPU the guest gets, whose it is, and how long it may take."""
    _whose(part)
    _timeout(part)


def add_measure(part: argparse.ArgumentParser) -> None:
    """How deep it is measured."""
    part.add_argument(
        "--levels", action="store_true", help="measure a guest's guest, too, and tell how much more it costs"
    )
    _timeout(part)


def add_cpu_forms(part: argparse.ArgumentParser) -> None:
    """Which CPU, and in which form."""
    _whose(part)
    form = part.add_mutually_exclusive_group()
    for name, what in (("qemu", "QEMU's -cpu"), ("libvirt", "libvirt's domain XML")):
        form.add_argument(
            f"--{name}", dest="form", action="store_const", const=name, help=f"print {what} alone"
        )


def _timeout(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        help="seconds that the guest has that runs a guest, from 5 to 600 (default 120)",
    )


def _whose(part: argparse.ArgumentParser) -> None:
    add_cpu(part)
    part.add_argument("--user", metavar="USER", type=word, help="run QEMU as this user (root only)")
