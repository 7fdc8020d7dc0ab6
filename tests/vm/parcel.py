# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is pushed into the machine: a tar on a raw disk, which the machine reads past its own cache."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.vm.hardware import PUSH_DISK_BYTES
from tests.vm.problem import VmError

_DEVICE = "/dev/disk/by-id/virtio-push"
_BLOCK = 65536


def blank(disk: Path) -> None:
    """Make the disk, empty and sparse."""
    with disk.open("wb") as file:
        file.truncate(PUSH_DISK_BYTES)


def pack(items: Iterable[Path | tuple[str, bytes]], disk: Path) -> int:
    """Write files, whole trees, or (name, bytes) to the disk; returns the archive's length in bytes."""
    with disk.open("r+b") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for item in items:
                _add(tar, item)
        length = file.tell()
    if length > PUSH_DISK_BYTES:
        raise VmError(f"{length} bytes are more than the push disk takes ({PUSH_DISK_BYTES})")
    return length


def unpacking(length: int, to: str) -> str:
    """Return the machine's half, a text of bash: unpack that many bytes of the disk into the folder `to`."""
    # O_DIRECT: the machine may have cached what was on this disk before.
    count = -(-length // _BLOCK)
    return (
        f"mkdir -p '{to}'; dd if={_DEVICE} iflag=direct bs={_BLOCK} count={count} status=none"
        # tar stops at the archive's end, before the last block's: dd must not die of that.
        f" | {{ tar -x --no-same-owner -C '{to}'; cat > /dev/null; }}"
    )


def _add(tar: tarfile.TarFile, item: Path | tuple[str, bytes]) -> None:
    if isinstance(item, Path):
        tar.add(item, arcname=item.name)
        return
    name, data = item
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mtime = int(time.time())
    tar.addfile(member, io.BytesIO(data))
