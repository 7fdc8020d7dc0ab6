# SPDX-License-Identifier: LGPL-2.1-or-later
"""inotify(7)'s three system calls, which Python's library does not have."""

from __future__ import annotations

import os


class Inotify:
    """An inotify instance: `descriptor` can be read when something has happened."""

    def __init__(self) -> None:
        # It costs 5 ms and 1 MB, so it waits until something is watched.
        import ctypes  # noqa: PLC0415

        self._errno = ctypes.get_errno
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self._check(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def _check(self, result: int) -> int:
        if result < 0:
            raise OSError(self._errno(), os.strerror(self._errno()))
        return result

    def add(self, path: str, mask: int) -> int:
        """Watch for the events of `mask`; the watch's number. Raises OSError."""
        return self._check(self._libc.inotify_add_watch(self.descriptor, os.fsencode(path), mask))

    def remove(self, watch: int) -> None:
        """Watch no more. One that the kernel has dropped already (EINVAL) is fine."""
        self._libc.inotify_rm_watch(self.descriptor, watch)

    def close(self) -> None:
        """Give the instance back, with all its watches."""
        os.close(self.descriptor)
