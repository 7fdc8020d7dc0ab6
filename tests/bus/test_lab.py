# SPDX-License-Identifier: LGPL-2.1-or-later
"""The object of a lab that was another one's."""

from __future__ import annotations

from collections.abc import Coroutine

import pytest

from nestd.bus.exported import Call
from nestd.bus.lab import INTERFACE, PATH, Lab
from nestd.errors import LabNotFound
from nestd.guests.lab import LabState
from nestd.model import Extension
from tests.guests.house import House, run
from tests.guests.town import town


def test_a_lab_that_took_the_name_meanwhile_is_not_started() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            view = await daemon.create(nodes=1)
            call = Call(":1.7", f"{PATH}/town", INTERFACE, "Start", ({},), interactive=False)

            async def ready(_: bool) -> Extension:
                await daemon.labs.remove("town")
                await daemon.create(nodes=1)
                await daemon.labs.stop("town", 10)
                return Extension.SVM

            started = Lab(daemon.labs, ready, view).methods["Start"].act(None, call)
            assert isinstance(started, Coroutine)
            with pytest.raises(LabNotFound, match="town has been removed meanwhile"):
                await started
            assert daemon.labs.get("town").state is LabState.STOPPED
            await daemon.labs.remove("town")

    run(scenario)
