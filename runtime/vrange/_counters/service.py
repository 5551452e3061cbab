"""The processes of one service, and the counts of those that have ended.

A scrape of any worker must report all workers, and no counter may go backwards when a worker ends.
So the segment of a participating worker outlives it. The next scrape adds its counts to the
service's ledger, a file beside the segments, and removes the segment; a worker that ends normally
does that itself. A scrape returns the ledger plus the counts of the living processes. Both happen
under a lock, so that no scrape counts a worker twice or misses it. A scrape that can't have the
lock changes no file, and reads again if a ledger changed meanwhile.

VRANGE_SERVICE in the environment names a service. Without it, the processes of one process group
are a service, as the workers of one server are. A service is over when none of its processes is
alive and the leader of its process group is gone. The next scrape then removes its files. A
service's bytes are those of living processes only, so no byte count becomes stale.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vrange._core import ffi, lib
from vrange._counters.account import warn_if_unseen
from vrange._counters.ledger import Service, ledger_path, load, save
from vrange._counters.lock import locked
from vrange._counters.own_file import is_private
from vrange._counters.processes import look, segment_files
from vrange._counters.segment import SegmentRefusedError, Snapshot, parse
from vrange._counters.totals import Totals
from vrange.errors import VrangeError

__all__ = ["Service", "join", "own_snapshot", "services"]

_TRIES = 10


# ---- reading -------------------------------------------------------------------------------------


def services(directory: Path, only: str | None = None) -> dict[str, Service]:
    """Return by key the services whose processes take part in sums, and remove those that are over.

    Adds the counts of processes that have ended to the ledgers. With `only`, returns that service
    alone. A directory that another user owns or can write to has none.
    """
    if not is_private(directory):
        return {}
    with locked(directory) as is_held:
        found = _fold(directory) if is_held else _read_only(directory)
    return found if only is None else {key: s for key, s in found.items() if key == only}


def _fold(directory: Path) -> dict[str, Service]:
    found, files = _read_all(directory)
    for key, service in list(found.items()):
        if service.is_over():
            _remove(directory, found.pop(key), files.get(key, []))
        elif service.folded:
            _save_and_remove(directory, service)
    return found


def _save_and_remove(directory: Path, service: Service) -> None:
    # Saved before the segments go, so that an interrupted fold is not repeated. On a full disk,
    # the segments stay, and the next scrape adds them again.
    with suppress(OSError):
        save(directory, service)
        for name in service.folded:
            (directory / name).unlink(missing_ok=True)


def _read_only(directory: Path) -> dict[str, Service]:
    """Read without the lock, and again if another process has changed a ledger meanwhile."""
    for _ in range(_TRIES):
        before = _ledgers(directory)
        found, _ = _read_all(directory)
        if _ledgers(directory) == before:
            break
    return {key: service for key, service in found.items() if not service.is_over()}


def _ledgers(directory: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in directory.glob("*.ledger"):
        with suppress(OSError):
            state = path.lstat()
            found[path.name] = (state.st_ino, state.st_mtime_ns)
    return found


def _read_all(directory: Path) -> tuple[dict[str, Service], dict[str, list[Path]]]:
    found: dict[str, Service] = {}
    files: dict[str, list[Path]] = {}
    for path in directory.glob("*.ledger"):
        service = load(path)
        if service is not None:
            found[service.key] = service
    for path in segment_files(directory):
        try:
            snapshot, alive = look(path)
        except (SegmentRefusedError, OSError):
            continue
        if alive is None or not snapshot.kept:
            continue
        key = snapshot.service_key
        service = found.setdefault(key, Service(key))
        files.setdefault(key, []).append(path)
        if alive:
            service.living.append(snapshot)
        elif path.name not in service.folded:
            service.fold(path, snapshot)
    return found, files


def _remove(directory: Path, service: Service, files: list[Path]) -> None:
    for path in (*files, ledger_path(directory, service.key)):
        with suppress(OSError):  # it is gone, or not a file: the next scrape finds it again
            path.unlink()


# ---- taking part ---------------------------------------------------------------------------------


def own_path() -> Path | None:
    """Return the path of this process's segment; None if it counts in private memory."""
    path = lib.vrange_segment_path()
    return None if path == ffi.NULL else Path(os.fsdecode(ffi.string(path)))


def own_snapshot() -> Snapshot:
    """Return the counts of this process, whether other processes can read them or not."""
    address = lib.vrange_segment_address()
    if address == ffi.NULL:
        raise MemoryError("no memory for counters")
    with memoryview(ffi.buffer(address, lib.vrange_segment_bytes())) as data:
        return parse(data)


def join() -> Callable[[], Totals]:
    """Take part in this process's service, and return a function that returns its totals.

    If other processes can't read this process's segment, the totals are those of this process
    alone, and one warning is given.
    """
    warn_if_unseen()
    lib.vrange_segment_keep(1)
    path = own_path()
    if path is not None:
        with suppress(OSError, VrangeError):
            services(path.parent)  # removes what services left whose processes were all killed
    global _joined
    if not _joined:
        atexit.register(_leave)
        _joined = True

    def totals() -> Totals:
        path = own_path()  # again: this may be the child of a fork
        own = own_snapshot()
        if path is not None:
            service = None
            with suppress(OSError, VrangeError):  # the application's own metrics must not be lost
                service = services(path.parent, only=own.service_key).get(own.service_key)
            if service is not None and any(one.pid == own.pid for one in service.living):
                return service.take_totals()
        alone = Totals()
        alone.add(own)
        return alone

    return totals


_joined = False


def _leave() -> None:
    """Add the counts of this process to its service, at exit."""
    path = own_path()
    if path is None:
        return
    with suppress(OSError, VrangeError), locked(path.parent) as is_held:
        own = own_snapshot()
        found, files = _read_all(path.parent)
        service = found.get(own.service_key)
        if not is_held or service is None or path.name in service.folded:
            return  # without the lock, the next scrape adds these counts
        service.living = [one for one in service.living if one.pid != own.pid]
        service.fold(path, own)
        if service.is_over(ending=own.pid):
            _remove(path.parent, service, files.get(service.key, []))
        else:
            _save_and_remove(path.parent, service)
