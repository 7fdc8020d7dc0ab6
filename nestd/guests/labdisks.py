# SPDX-License-Identifier: LGPL-2.1-or-later
"""The folder of a lab's disks and its removal, which systemd does (systemctl(1), clean).

The folder is the owner's: there may be anything in it, which changes under the hands of who removes it, or
that nestd may not remove for want of a capability (a sticky folder). systemd removes trees like these all the
time, never follows a link, and has all rights.
"""

from __future__ import annotations

import os

from nestd import tasks
from nestd.errors import CallFailed, Failed
from nestd.guests import labplaces
from nestd.host.root import Root
from nestd.host.units import JobFailed, UnitExists, Units
from nestd.wire.library import Variant

_LIMIT = 300.0  # seconds


async def remove(root: Root, units: Units, lab: str) -> None:
    """Remove all of it; none is fine. Failed."""
    if not exists(root, lab):
        return
    path = f"/var/lib/{labplaces.state(lab)}"
    unit = labplaces.cleaner(lab)
    try:
        await _clean(units, unit, lab)
    except CallFailed as error:
        raise Failed(f"systemd does not remove {path}: {error.text}") from error
    except (JobFailed, TimeoutError) as error:
        raise Failed(f"systemd did not remove {path} ({error}): see `systemctl status {unit}`.") from error
    except UnitExists as error:
        raise Failed(f"{path} is being removed already: see `systemctl status {unit}`.") from error
    if exists(root, lab):
        raise Failed(f"systemd did not remove all of {path}: `journalctl -b _PID=1` may tell why.")


def exists(root: Root, lab: str) -> bool:
    """Whether there is such a folder, or anything in its place."""
    return os.path.lexists(root.path(f"/var/lib/{labplaces.state(lab)}"))


async def _clean(units: Units, unit: str, lab: str) -> None:
    watch = await units.follow(unit)
    try:
        try:
            await _load(units, unit, lab)
        except (CallFailed, UnitExists):
            raise  # there is none of ours
        except BaseException:
            await units.unref(unit)
            raise
        try:
            await units.clean(unit, "state")
            await units.settle(watch)
            async with tasks.timeout(_LIMIT):
                await watch.ended
        finally:
            await units.unref(unit)
    finally:
        await watch.close()


async def _load(units: Units, unit: str, lab: str) -> None:
    """Have systemd know a unit with that folder, which never runs; as long as nestd has a reference to it."""
    properties = [
        ("Description", Variant("s", f"The disks of the lab {lab} are removed")),
        ("AddRef", Variant("b", True)),
        ("CollectMode", Variant("s", "inactive-or-failed")),
        ("Conditions", Variant("a(sbbs)", [["ConditionPathExists", False, True, "/"]])),
        ("Type", Variant("s", "oneshot")),
        ("ExecStart", Variant("a(sasb)", [["/bin/false", ["/bin/false"], False]])),
        ("StateDirectory", Variant("as", [labplaces.state(lab)])),
    ]
    try:
        await units.start_transient(unit, properties)
    except JobFailed as failure:
        if failure.result != "skipped":
            raise
