"""The processes of one service, and the counts of those that have ended.

A scrape of any worker must report all workers, and no counter may go backwards when a worker ends.
So the segment of a participating worker outlives it. The next scrape adds its counts to the
service's ledger, a file beside the segments, and removes the segment; a worker that ends normally
does that itself. A scrape returns the ledger plus the counts of the living processes. Both happen
under a lock on the directory, so that no scrape counts a worker twice or misses it.

VRANGE_SERVICE in the environment names a service. Without it, the processes of one process group
are a service, as the workers of one server are. A service is over when none of its processes is
alive and the leader of its process group is gone. The next scrape then removes its files. A
service's bytes are those of living processes only, so no byte count becomes stale.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrange._core import ffi, lib
from vrange._counters.account import warn_if_unseen
from vrange._counters.descriptor import Descriptor
from vrange._counters.processes import is_alive, process_fields, segment_files
from vrange._counters.segment import SegmentRefusedError, Snapshot, parse, read
from vrange._counters.totals import Totals
from vrange.errors import VrangeError

__all__ = ["Service", "join", "own_snapshot", "services"]

_LOCK_SECONDS = 5.0
_VERSION = 1


@dataclass
class Service:
    """What is known of one service.

    `ended` holds the counts of its processes that have ended, `living` the snapshots of the others.
    """

    key: str
    ended: Totals = field(default_factory=Totals)
    living: list[Snapshot] = field(default_factory=list)
    leaders: list[tuple[int, int]] = field(default_factory=list)  # process group, started before
    folded: list[str] = field(default_factory=list)  # files that are in `ended` and may still exist

    def take_totals(self) -> Totals:
        """Return all counts so far, and the bytes of living processes. Call it only once."""
        totals, self.ended = self.ended, Totals()
        for snapshot in self.living:
            totals.add(snapshot)
        return totals

    def fold(self, file: Path, snapshot: Snapshot) -> None:
        """Add the counts of a process that has ended."""
        self.ended.add(snapshot, ended=True)
        self.leaders = [(snapshot.group, snapshot.start_ticks), *self.leaders][:2]
        self.folded.append(file.name)

    def is_over(self, ending: int | None = None) -> bool:
        """Return whether no process is left that could start a worker; `ending` is not counted."""
        leaders = [leader for leader in self.leaders if leader[0] != ending]
        return not self.living and not any(_leads(*leader) for leader in leaders)


def _leads(group: int, before_ticks: int) -> bool:
    fields = process_fields(group)
    return fields is not None and fields[0] not in "ZX" and int(fields[19]) <= before_ticks


# ---- the ledger ----------------------------------------------------------------------------------


def _ledger_path(directory: Path, key: str) -> Path:
    readable = re.sub(r"[^\w.-]", "_", key)[:40]
    return directory / f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.ledger"


def _load(path: Path) -> Service | None:
    """Load a ledger; None if there is none, or it is not readable: counting then starts anew."""
    try:
        if path.lstat().st_uid != os.geteuid():
            return None
        data: dict[str, Any] = json.loads(path.read_text())
        if data["version"] != _VERSION:
            return None
        return Service(
            key=str(data["key"]),
            ended=Totals.from_json(data["ended"]),
            leaders=[(int(group), int(ticks)) for group, ticks in data["leaders"]],
            folded=[str(name) for name in data["folded"]],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


def _save(directory: Path, service: Service) -> None:
    path = _ledger_path(directory, service.key)
    service.folded = [name for name in service.folded if (directory / name).exists()]
    data = {
        "version": _VERSION,
        "key": service.key,
        "ended": service.ended.as_json(),
        "leaders": service.leaders,
        "folded": service.folded,
    }
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(data, file, separators=(",", ":"))
    fresh.replace(path)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    lock = Descriptor(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise VrangeError(
                        f"another process has held {directory} for {_LOCK_SECONDS:g} s: it was "
                        "stopped while it read the segments there"
                    ) from None
                time.sleep(0.001)
        try:
            yield
        finally:
            # Closing is not enough: if another thread forked meanwhile, the child has it too.
            if lock.is_ours():
                fcntl.flock(lock.number, fcntl.LOCK_UN)
    finally:
        lock.close()


# ---- reading -------------------------------------------------------------------------------------


def services(directory: Path, only: str | None = None) -> dict[str, Service]:
    """Return by key the services whose processes take part in sums, and remove those that are over.

    Adds the counts of processes that have ended to the ledgers. With `only`, returns that service
    alone.
    """
    with _locked(directory):
        found, files = _read_all(directory)
        for key, service in list(found.items()):
            if service.is_over():
                _remove(directory, found.pop(key), files.get(key, []))
            elif service.folded:
                # Saved before the segments go, so that an interrupted fold is not repeated.
                _save(directory, service)
                for name in service.folded:
                    (directory / name).unlink(missing_ok=True)
    return found if only is None else {key: s for key, s in found.items() if key == only}


def _read_all(directory: Path) -> tuple[dict[str, Service], dict[str, list[Path]]]:
    found: dict[str, Service] = {}
    files: dict[str, list[Path]] = {}
    for path in directory.glob("*.ledger"):
        service = _load(path)
        if service is not None:
            found[service.key] = service
    for path in segment_files(directory):
        try:
            alive = is_alive(path)
            snapshot = read(path)
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
    for path in files:
        path.unlink(missing_ok=True)
    _ledger_path(directory, service.key).unlink(missing_ok=True)


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
        services(path.parent)  # removes what services left whose processes were all killed
    global _joined
    if not _joined:
        atexit.register(_leave)
        _joined = True

    def totals() -> Totals:
        path = own_path()  # again: this may be the child of a fork
        own = own_snapshot()
        if path is not None:
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
    with suppress(OSError, VrangeError), _locked(path.parent):
        own = own_snapshot()
        found, files = _read_all(path.parent)
        service = found.get(own.service_key)
        if service is None or path.name in service.folded:
            return
        service.living = [one for one in service.living if one.pid != own.pid]
        service.fold(path, own)
        if service.is_over(ending=own.pid):
            _remove(path.parent, service, files.get(service.key, []))
        else:
            _save(path.parent, service)
            for name in service.folded:
                (path.parent / name).unlink(missing_ok=True)
