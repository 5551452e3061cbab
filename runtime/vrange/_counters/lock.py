"""The lock under which the processes of a user add up counts in a directory.

It is a lock on a file that only this user can open. A directory can be locked by every user who may
read it, and such a lock would keep all scrapes waiting. The holder removes the file at the end, so
that a directory whose services are over is empty.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vrange._counters.descriptor import Descriptor

__all__ = ["locked"]

_NAME = "lock"
_WAIT_SECONDS = 1.0


@contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Hold the lock of a directory of this user.

    Yields False if it can't be acquired: the directory is read-only or full, or another process of
    this user was stopped while it held the lock. Then nothing in the directory may be changed.
    """
    lock = None
    with suppress(OSError):
        lock = _acquire(directory / _NAME, time.monotonic() + _WAIT_SECONDS)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            _release(lock, directory / _NAME)


def _acquire(path: Path, deadline: float) -> Descriptor | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    while True:
        lock = Descriptor(os.open(path, flags, 0o600))
        try:
            found = os.fstat(lock.number)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise PermissionError(f"{path} is not a file of this user")
            fcntl.flock(lock.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, found):
                return lock
            lock.close()  # the holder before has removed it
        except BlockingIOError:
            lock.close()
            if time.monotonic() > deadline:
                return None
            time.sleep(0.001)
        except BaseException:
            lock.close()
            raise


def _is_at(path: Path, found: os.stat_result) -> bool:
    with suppress(OSError):
        return os.path.samestat(path.lstat(), found)
    return False


def _release(lock: Descriptor, path: Path) -> None:
    # If other code closed the descriptor, the lock went with it, and the file is another holder's.
    if lock.is_ours():
        with suppress(OSError):
            path.unlink()
        # Closing is not enough: if another thread forked meanwhile, the child has it too.
        fcntl.flock(lock.number, fcntl.LOCK_UN)
    lock.close()
