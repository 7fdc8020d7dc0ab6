# SPDX-License-Identifier: LGPL-2.1-or-later
"""Replacing and removing a file so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nestd.host.root import Root


def _open_folder(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


@contextmanager
def _named(absolute: str) -> Iterator[None]:
    """Have every OSError name the file that is meant, not a temporary or a folder below some root."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, absolute) from error


def _refuse_other_than_file(name: str, folder: int, absolute: str) -> None:
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        code = errno.ELOOP if stat.S_ISLNK(mode) else errno.EEXIST
        raise OSError(code, "not a regular file, so it is left alone", absolute)


def replace(root: Root, absolute: str, text: str, mode: int = 0o644, *, make_folder: bool = False) -> None:
    """Make `text` the content of the file `absolute`, with the permissions `mode`.

    The temporary lies in the same folder under a name that modprobe does not read. It is
    on the disk before it is renamed, and so is the folder afterwards. `make_folder` makes the
    folder itself (0755), not its parents.

    Raises OSError, the old file being untouched: ELOOP if it is a symbolic link, EEXIST if it is
    anything else than a regular file, ENOTDIR if the folder is a symbolic link, ENOENT, EROFS,
    ENOSPC, EACCES ... If it is the folder that cannot be synced, the new file is there.
    """
    with _named(absolute):
        _replace(root.path(absolute), absolute, text, mode, make_folder)


def _replace(path: str, absolute: str, text: str, mode: int, make_folder: bool) -> None:
    parent, name = os.path.split(path)
    if make_folder:
        with suppress(FileExistsError):
            os.mkdir(parent, 0o755)
    folder = _open_folder(parent)
    try:
        _refuse_other_than_file(name, folder, absolute)
        temporary = f".{name}.nestd-new"
        # One that a crash left behind; the name is ours.
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, mode, dir_fd=folder), "wb", buffering=0) as file:
            try:
                os.fchmod(file.fileno(), mode)
                left = memoryview(text.encode("utf-8", "surrogateescape"))
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(temporary, dir_fd=folder)
                raise
        os.fsync(folder)
    finally:
        os.close(folder)


def remove(root: Root, absolute: str) -> None:
    """Remove the file `absolute`; it is fine if it, or its folder, is missing.

    A symbolic link is removed itself, what it points to is not touched. Raises OSError (EISDIR,
    EROFS, EACCES ...).
    """
    with _named(absolute):
        _remove(root.path(absolute))


def _remove(path: str) -> None:
    parent, name = os.path.split(path)
    try:
        folder = _open_folder(parent)
    except FileNotFoundError:
        return
    try:
        os.unlink(name, dir_fd=folder)
        os.fsync(folder)
    except FileNotFoundError:
        pass
    finally:
        os.close(folder)
