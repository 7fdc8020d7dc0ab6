# SPDX-License-Identifier: LGPL-2.1-or-later
"""One attack as a process of its own: `attacker ADDRESS ATTACK SECONDS`, as root, which becomes others.

It prints what nestd answered, as JSON.
"""

from __future__ import annotations

import json
import resource
import sys

from tests.attacks.attacks import ATTACKS
from tests.attacks.ground import Ground


def main(address: str, name: str, seconds: str) -> None:
    """Attack."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ground = Ground(address, float(seconds))
    ATTACKS[name](ground)
    print(json.dumps({"answers": ground.answers, "errors": ground.errors, "from_bus": ground.from_bus}))


if __name__ == "__main__":
    main(*sys.argv[1:])
