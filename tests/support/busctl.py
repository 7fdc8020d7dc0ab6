# SPDX-License-Identifier: LGPL-2.1-or-later
"""busctl, the client that everybody has, as any user."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.support.clients import LIMIT, ROOT


def busctl(address: str, *arguments: str, uid: int = ROOT) -> subprocess.CompletedProcess[str]:
    """busctl as that user."""
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"] if uid else []
    return subprocess.run(
        [*become, "busctl", f"--address={address}", *arguments],
        capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip


def busctl_json(address: str, *arguments: str, uid: int = ROOT) -> Any:
    """What busctl says as JSON, its type annotations taken off. AssertionError with its words if it fails."""
    done = busctl(address, "--json=short", *arguments, uid=uid)
    assert done.returncode == 0, done.stderr
    return _untyped(json.loads(done.stdout))


def _untyped(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"type", "data"}:
            return _untyped(value["data"])
        return {key: _untyped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_untyped(inner) for inner in value]
    return value
