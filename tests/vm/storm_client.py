# SPDX-License-Identifier: LGPL-2.1-or-later
"""One of those who storm nestd, in the machine: `storm_client.py KIND SECONDS`. Says what it was told.

KIND is enable, disable, read, cancel, or hold, which makes virtual machines for a moment each.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import sys
import time
from collections import Counter

from nestd.ctl.client import Client
from nestd.ctl.failures import Refused
from nestd.wire.library import Variant

MANAGER = ("/org/nestd1", "org.nestd1.Manager")
READS = (("GetStatus", "a{sv}"), ("ListHolders", "a(usss)"), ("Diagnose", "a(ssss)"))


def ask(client: Client, kind: str, chance: random.Random) -> None:
    """One call."""
    if kind == "read":
        member, returns = chance.choice(READS)
        client.call(*MANAGER, member, returns=returns)
    elif kind == "cancel":
        client.call(*MANAGER, "CancelPending")
        time.sleep(0.3)
    else:
        options = {
            "scope": Variant("s", chance.choice(("both", "both", "runtime", "boot"))),
            "when-idle": Variant("b", chance.random() < 0.5),
        }
        client.call(*MANAGER, kind.title(), "a{sv}", options, returns="a{sv}", limit=120)


def hold(chance: random.Random) -> None:
    """Make a virtual machine (KVM_CREATE_VM), if there is a driver, for a moment."""
    try:
        device = os.open("/dev/kvm", os.O_RDWR)
        try:
            os.close(fcntl.ioctl(device, 0xAE01, 0))
            time.sleep(chance.random())
        finally:
            os.close(device)
    except OSError:
        pass  # the driver is being reloaded
    time.sleep(chance.random())


def main(kind: str, seconds: float) -> None:
    chance = random.Random(kind)
    told: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with Client("system", os.environ, interactive=False) as client:
        while time.monotonic() < end:
            if kind == "hold":
                hold(chance)
                continue
            try:
                ask(client, kind, chance)
                told["reply"] += 1
            except Refused as refused:
                told[refused.name] += 1
                time.sleep(0.05)  # one who asks without a break would leave the machine's processor to nobody
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
