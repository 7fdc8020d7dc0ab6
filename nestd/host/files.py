# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that only root can have made: replaced so that a crash leaves the old or the new one, never half.

Every folder on the way is opened from the one above it, no symbolic link is followed, and a folder
that belongs to somebody else, or that others may write to, is refused: whoever controls it would
choose what is written, or read with trust. All errors are OSErrors that name the file meant.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nestd.host.root import Root

_LINK = "a symbolic link, which is not followed"
_LIMIT = 1 << 20  # bytes of a file that nestd wrote itself


@contextmanager
def _named(absolute: str) -> Iterator[None]:
    """Have every OSError name the file that is meant, not a temporary or a folder below some root."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, absolute) from error


def _refuse_strangers(found: os.stat_result, what: str) -> None:
    if found.st_uid not in {0, os.geteuid()}:
        raise OSError(errno.EPERM, f"{what} belongs to uid {found.st_uid}, so it is not trusted")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        raise OSError(
            errno.EPERM, f"{what} may be written to by others (mode {mode:04o}), so it is not trusted"
        )


def _make(above: int, name: str, mode: int) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=above)
        # More than the umask left of it, never less.
        os.chmod(name, mode, dir_fd=above)


def _step(above: int, name: str, absolute: str, *, strangers: bool = False) -> int:
    """The folder `name` in the folder `above`, as a descriptor that only leads on (O_PATH)."""
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        found = os.fstat(place)
        what = f"the folder {absolute}"
        if stat.S_ISLNK(found.st_mode):
            raise OSError(errno.ELOOP, f"{what} is {_LINK}")
        if not stat.S_ISDIR(found.st_mode):
            raise OSError(errno.ENOTDIR, f"{what} is no folder")
        if not strangers:
            _refuse_strangers(found, what)
    except BaseException:
        os.close(place)
        raise
    return place


@contextmanager
def _folder(
    root: Root, absolute: str, *, make: int = 0, mode: int = 0o755, strangers: bool = False
) -> Iterator[int]:
    """The folder `absolute`, every step on the way to it looked at; `strangers`: whoever it belongs to.

    Of the steps the last `make` are made if they are missing: the last with `mode`, the others with 0755.
    """
    root.path(absolute)  # a ValueError, if it is not a plain path
    steps = [step for step in absolute.split("/") if step]
    place = os.open(root.path("/"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for at, name in enumerate(steps):
            left = len(steps) - at
            if left <= make:
                _make(place, name, mode if left == 1 else 0o755)
            below = _step(place, name, "/" + "/".join(steps[: at + 1]), strangers=strangers)
            os.close(place)
            place = below
        # To list and to sync it, it has to be really open.
        real = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
        os.close(place)
        place = real
        yield place
    finally:
        os.close(place)


def _refuse_other_than_file(name: str, folder: int) -> None:
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, f"{_LINK}, so it is left alone")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EEXIST, "not a regular file, so it is left alone")


def make_folder(root: Root, absolute: str, mode: int) -> None:
    """Make the folder `absolute` with the permissions `mode`, and what is missing above it (0755).

    One that is there keeps its permissions. Raises OSError: ELOOP, ENOTDIR, EPERM for what is not trusted, on
    the way or in its place, EROFS, ENOSPC ...
    """
    with _named(absolute), _folder(root, absolute, make=absolute.count("/"), mode=mode):
        pass


def replace(root: Root, absolute: str, text: str, mode: int = 0o644, *, make_folder: bool = False) -> None:
    """Make `text` the content of the file `absolute`, with the permissions `mode`.

    The temporary lies in the same folder under a name that modprobe does not read. It is
    on the disk before it is renamed, and so is the folder afterwards. `make_folder` makes the
    folder itself (0755), not its parents.

    Raises OSError, the old file being untouched: ELOOP if it, or a folder on the way, is a symbolic link,
    EEXIST if it is anything else than a regular file, EPERM if a folder on the way is somebody else's,
    ENOTDIR, ENOENT, EROFS, ENOSPC, EACCES ... If the folder cannot be synced, the new file is there.
    """
    parent, _, name = absolute.rpartition("/")
    with _named(absolute), _folder(root, parent, make=int(make_folder)) as folder:
        _refuse_other_than_file(name, folder)
        _replace(folder, name, text, mode)


def publish(root: Root, absolute: str, text: str) -> None:
    """As `replace`, with 0644, for what everybody may read and nestd itself never does.

    So the folders on the way may belong to anybody: whoever controls them can take the file away, but it is
    never written through a link, nor to anything that was there before. Raises OSError, as `replace`.
    """
    parent, _, name = absolute.rpartition("/")
    with _named(absolute), _folder(root, parent or "/", strangers=True) as folder:
        _refuse_other_than_file(name, folder)
        _replace(folder, name, text, 0o644)


def withdraw(root: Root, absolute: str) -> None:
    """Remove what was published; it is fine if it is gone. Raises OSError, as `replace`.

    What `publish` has left alone, as it is no file, is left alone here, too.
    """
    parent, _, name = absolute.rpartition("/")
    with (
        suppress(FileNotFoundError),
        _named(absolute),
        _folder(root, parent or "/", strangers=True) as folder,
    ):
        _refuse_other_than_file(name, folder)
        os.unlink(name, dir_fd=folder)


def _replace(folder: int, name: str, text: str, mode: int) -> None:
    temporary = f".{name}.nestd-new"
    # One that a crash left behind; the name is ours.
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, mode, dir_fd=folder), "wb", buffering=0) as file:
        try:
            # More than the umask left of it, never less.
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


def read(root: Root, absolute: str) -> str | None:
    """The text of a file that is believed because nobody but root can have written it; None if it is missing.

    Raises OSError: as `replace`, and EPERM if the file itself is somebody else's, EFBIG above 1 MiB.
    """
    parent, _, name = absolute.rpartition("/")
    try:
        with _named(absolute), _folder(root, parent) as folder:
            _refuse_other_than_file(name, folder)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
                _refuse_strangers(os.fstat(file.fileno()), "the file")
                data = file.read(_LIMIT + 1)
                if len(data) > _LIMIT:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                return data.decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None


def names(root: Root, absolute: str) -> tuple[str, ...]:
    """The names in a folder that is trusted, sorted; () if there is no such folder. Raises OSError."""
    try:
        with _named(absolute), _folder(root, absolute) as folder:
            return tuple(sorted(os.listdir(folder)))
    except FileNotFoundError:
        return ()


def remove(root: Root, absolute: str) -> None:
    """Remove the file `absolute`; it is fine if it, or its folder, is missing.

    A symbolic link is removed itself, what it points to is not touched. Raises OSError (EISDIR,
    EROFS, EACCES, and ELOOP, EPERM for a folder on the way).
    """
    parent, _, name = absolute.rpartition("/")
    try:
        with _named(absolute), _folder(root, parent) as folder:
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)
    except FileNotFoundError:
        pass
