# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was seen in each initramfs, so that none is opened twice: /var/lib/nestd/images.

An image counts as the one that was seen as long as its time and size are the same. Its inode need not be, as
a FAT file system makes them up anew at each mount, unless it was so young that its time says too little. FAT
counts two seconds, so one that is that young there is let grow older before it is looked into.
"""

# No postponed annotations here: see nestd/model.py.

import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from nestd import log, tasks
from nestd.host.initramfs import Image
from nestd.host.machine import Host
from nestd.host.root import Root
from nestd.nesting.store import LASTING, Store

_NAME = "images"
_PATH = f"{LASTING}/{_NAME}"
_YOUNG = 4_000_000_000  # ns
_FAT = 2_000_000_000  # ns between two of FAT's times
_MOST = 64  # images; and bytes of what an image's files say
_LONGEST = 12 << 10


class Mark(NamedTuple):
    """What tells whether an image is still the same. `settled`: its inode does not matter."""

    inode: int
    changed: int  # ns since the epoch
    size: int
    settled: bool

    def means(self, now: "Mark") -> bool:
        """Whether that is the same image now."""
        same = (self.changed, self.size) == (now.changed, now.size)
        return same and (self.settled or self.inode == now.inode)


def known(root: Root, path: str) -> Image | None:
    """What was seen in the image, if it has not changed since. One stat, two where there is a record."""
    record = _record(root)
    if path not in record:
        return None
    mark, image = record[path]
    now = _mark(root, path)
    return image if now is not None and mark.means(now) else None


def anything(root: Root) -> bool:
    """Whether anything was ever seen. One stat."""
    return bool(_record(root))


async def look(host: Host, path: str) -> Image:
    """What is in the image: what is known, or what is seen now, which is remembered unless it has a doubt."""
    image = known(host.root, path)
    if image is not None:
        return image
    mark = await _grown(host.root, path)
    from nestd.host import initramfs  # noqa: PLC0415 -- start-up looks into none

    image = await initramfs.look(host.root, host.commands, path)
    if mark is None or image.doubt or sum(len(text) for _, text in image.files) > _LONGEST:
        return image
    after = _mark(host.root, path)
    if after is None or not mark.means(after):
        return image._replace(doubt=f"{path} changed while it was looked into")
    try:
        _remember(host.root, mark, image)
    except OSError as failure:
        log.warning(f"What is in {path} cannot be remembered in {_PATH}: {failure}")
    return image


async def _grown(root: Root, path: str) -> Mark | None:
    """Its mark, after a wait if it is young and on FAT, which a time of whole two seconds tells."""
    mark = _mark(root, path)
    if mark is None or mark.settled or mark.changed % _FAT:
        return mark
    # Of a time in the future nothing can be hoped for.
    await tasks.sleep(min(_YOUNG, max(0, _YOUNG - (time.time_ns() - mark.changed))) / 1e9 + 0.01)
    return _mark(root, path)


def _mark(root: Root, path: str) -> Mark | None:
    try:
        found = os.stat(root.path(path))
    except OSError:
        return None
    settled = time.time_ns() - found.st_mtime_ns > _YOUNG
    return Mark(found.st_ino, found.st_mtime_ns, found.st_size, settled)


def _record(root: Root) -> Mapping[str, tuple[Mark, Image]]:
    """All that was seen; read anew only if the record has changed."""
    try:
        found = os.stat(root.path(_PATH))
        signature = (found.st_ino, found.st_mtime_ns, found.st_size)
    except OSError:
        return {}
    return root.remembered("images", signature, lambda: _load(root))


def _load(root: Root) -> dict[str, tuple[Mark, Image]]:
    store = Store(root, LASTING)
    try:
        raw = store.load(_NAME) or {}
        try:
            return {path: _parsed(root, path, one) for path, one in raw.items()}
        except ValueError:
            store.set_aside(_NAME)
    except OSError as failure:
        log.warning(f"What was seen in the initramfs cannot be read: {failure}")
    return {}


def _parsed(root: Root, path: str, raw: Any) -> tuple[Mark, Image]:
    """One image of the record. ValueError: that is none."""
    root.path(path)
    match raw:
        case {
            "mark": [int(inode), int(changed), int(size), bool(settled)],
            "maker": str(maker),
            "modules": list(modules),
            "files": dict(files),
        } if all(isinstance(one, str) for one in (*modules, *files.values())):
            image = Image(path, tuple(modules), tuple(files.items()), "", maker)
            return Mark(inode, changed, size, settled), image
    raise ValueError(path)


def _remember(root: Root, mark: Mark, image: Image) -> None:
    """Add it to the record, from which what is gone is dropped. OSError."""
    kept = {path: one for path, one in _record(root).items() if path != image.path and _mark(root, path)}
    kept = {**dict(list(kept.items())[1 - _MOST :]), image.path: (mark, image)}
    record = {
        path: {
            "mark": list(one_mark),
            "maker": one.maker,
            "modules": list(one.modules),
            "files": dict(one.files),
        }
        for path, (one_mark, one) in kept.items()
    }
    Store(root, LASTING).save(_NAME, record)
