"""The results of a Dask worker: in memory, in volatile memory, and on disk."""

from __future__ import annotations

import enum
import logging
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import dask.config
from dask.utils import format_bytes
from distributed.sizeof import safe_sizeof

from vrange import Arena, ArenaFullError, Range
from vrange._cgroup.limits import machine_bytes
from vrange.dask.buffer_bounds import Bounds, bounds_of, manager_of
from vrange.dask.counting import Counted
from vrange.dask.frames import Frames, encode
from vrange.dask.held import Held
from vrange.dask.spill_files import SpillFiles
from vrange.dask.spilled import Spilled
from vrange.sizes import parse_bytes

__all__ = ["SpilledSize", "VolatileBuffer"]

_LOG = logging.getLogger("vrange.dask")
_FAILED = -1  # what evict() returns to Dask if nothing could be evicted
_SMALL_BYTES = 4096
_STEP = 2  # as much is evicted for a new value as it has itself, times this
_QUIET_SECONDS = 60  # between two messages about the same trouble with the disk
_ADDRESS_SPACE = 4  # of the machine's memory; an arena reserves no memory


class Copy(enum.Enum):
    """Whether a value that goes to disk is copied to a volatile range as well."""

    NO = 0
    MAY = 1  # if there is room
    MUST = 2  # or it stays


class SpilledSize(NamedTuple):
    """The size of spilled values, as Dask's own SpillBuffer reports it."""

    memory: int
    disk: int


class VolatileBuffer(MutableMapping[Any, object]):
    """The data of a Dask worker, of which what was used least recently is volatile and on disk.

    Dask's own SpillBuffer writes what does not fit to disk, drops it from memory, and reads it
    back when it is used. This one keeps it in memory as well, as a volatile range, until that
    memory is needed for something else: then the least valuable ranges go. So a value that is used
    again comes back without a read, or a copy, as long as memory is spare. A value is written once,
    however often it is evicted. No key is ever lost: what is volatile is on disk, too.

    Use it as ``Worker(data=VolatileBuffer)``, or ``LocalCluster(data=VolatileBuffer)``, or with
    options as ``data=(VolatileBuffer, {"hot": "1GiB"})``.

    Parameters
    ----------
    worker_local_directory : str
        The worker's directory, which Dask passes. Files go to "storage" in it.
    hot : int or str or float, optional
        How much the worker holds itself, by Dask's `sizeof`: bytes, or a share of the worker's
        memory limit. What exceeds it is written to disk, and stays in memory as volatile. By
        default, nothing is written while all values fit into `distributed.worker.memory.target`;
        otherwise it is a quarter of that.
    max_spill : int or str or False, optional
        The most bytes on disk. The default is `distributed.worker.memory.max-spill`.

    Raises
    ------
    ValueError
        If `hot` or `max_spill` is not a size.

    Notes
    -----
    Values are encoded by the serializers that are registered with Dask, with the buffers out of
    band, and are not compressed. A value that can't be encoded stays in memory. If the disk is
    full or can't be written to, values stay in memory as well, and Dask pauses the worker, as it
    does without vrange. A value that a task changed in place is written again when it is evicted.
    What lies on a GPU is copied to disk, and gets no range. Every thread may call all methods.

    Examples
    --------
    >>> import tempfile
    >>> buffer = VolatileBuffer(tempfile.mkdtemp(), hot="64MiB")
    >>> buffer["x"] = b"a value"
    >>> buffer.evict() > 0  # on disk, and still in memory
    True
    >>> buffer["x"]
    b'a value'
    >>> buffer.close()

    """

    def __init__(
        self,
        worker_local_directory: str,
        *,
        hot: int | str | float | None = None,
        max_spill: int | str | bool | None = None,
    ) -> None:
        if max_spill is None:
            max_spill = dask.config.get("distributed.worker.memory.max-spill", False)
        most = None if max_spill is False else parse_bytes(max_spill, "max_spill")
        self._hot = hot if hot is None or isinstance(hot, float) else parse_bytes(hot, "hot")
        if isinstance(hot, float) and not 0 < hot <= 1:
            raise ValueError(f"hot must be a size, or a share from 0 to 1, not {hot!r}")
        self._files = SpillFiles(Path(worker_local_directory, "storage"), most)
        self._arena = _open_arena()
        self._lock = threading.RLock()
        self._held = Held()
        self._spilled: dict[Any, Spilled] = {}  # those that are on disk; they can be in _fast, too
        self._counted = Counted()
        self._complained: float | None = None
        self._manager: weakref.ref[Any] | None = None  # the worker's; found once it is there

    # ---- the mapping -----------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> object:
        with self._lock:
            if key in self._held.values:
                self._counted.add("memory-read", self._held.weights[key])
                return self._held.use(key)
            value = self._held.still_in_use(key)
            if value is None:
                value = self._load(key)
            else:
                self._counted.add("memory-read", self._held.weights[key])
            bounds = self._bounds()
            if bounds is None or self._held.weights[key] <= bounds.hot:
                self._held.hold(key, value)
                self._evict_what_is_too_much(key)
            return value

    def __setitem__(self, key: Any, value: object) -> None:
        with self._lock:
            self._forget(key)
            self._held.add(key, value, safe_sizeof(value))
            self._evict_what_is_too_much(key)

    def __delitem__(self, key: Any) -> None:
        with self._lock:
            if key not in self._held.weights:
                raise KeyError(key)
            self._forget(key)

    def __contains__(self, key: object) -> bool:
        return key in self._held.weights

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._held.weights))

    def __len__(self) -> int:
        return len(self._held.weights)

    def __repr__(self) -> str:
        with self._lock:
            held = len(self._held.values)
            return (
                f"<VolatileBuffer: {held} values of {format_bytes(self._held.held_bytes)} held, "
                f"{len(self) - held} spilled, of which "
                f"{format_bytes(self._resident_bytes())} are in memory>"
            )

    # ---- what Dask asks for ----------------------------------------------------------------------

    @property
    def fast(self) -> dict[Any, object]:
        """The values that the worker holds. Do not change it."""
        return self._held.values

    @property
    def memory(self) -> dict[Any, object]:
        """The same, by the name that SpillBuffer has for it."""
        return self._held.values

    @property
    def disk(self) -> dict[Any, Spilled]:
        """What was spilled and is not held, by key."""
        with self._lock:
            return {key: one for key, one in self._spilled.items() if key not in self._held.values}

    @property
    def spilled_total(self) -> SpilledSize:
        """The size of what is spilled and no longer in memory, and the bytes on disk.

        Volatile values that are in memory count as memory, which they are until they go.
        """
        with self._lock:
            out = self._held.all_bytes - self._held.held_bytes
            return SpilledSize(max(0, out - self._resident_bytes()), self._files.total_bytes)

    @property
    def cumulative_metrics(self) -> Mapping[tuple[str, str], float]:
        """The reads and writes so far, by what was done and unit."""
        return self._counted.metrics

    def evict(self) -> int:
        """Give up memory, because the process has too much: evict what was used least recently.

        Returns
        -------
        int
            The size of the evicted value; -1 if none could be evicted.

        """
        with self._lock:
            while victim := self._held.victim():
                key = victim[0]
                weight = self._held.weights[key]
                if self._evict(key, Copy.NO):
                    # If it lay in a range, only this reduces what the process has.
                    if self._arena is not None and self._spilled[key].has_range:
                        self._arena.discard(self._spilled[key].layout.nbytes)
                    return weight
                if self._held.can_go(key):
                    break  # the disk is full: no other value would find place
            return _FAILED

    def close(self) -> None:
        """Remove all files and free all memory. Arrays that tasks hold stay valid."""
        with self._lock:
            self._held.clear()
            self._spilled.clear()
            self._files.close()
            if self._arena is not None:
                self._arena.close()
                self._arena = None

    # ---- inside the lock -------------------------------------------------------------------------

    def _load(self, key: Any) -> object:
        began = time.monotonic()
        value, read = self._spilled[key].load(self._files)
        if read:
            self._counted.add("disk-read", read, time.monotonic() - began)
        else:
            self._counted.add("memory-read", self._held.weights[key])
        return value

    def _forget(self, key: Any) -> None:
        self._held.forget(key)
        spilled = self._spilled.pop(key, None)
        if spilled is not None:
            self._files.remove(spilled.path)

    def _evict_what_is_too_much(self, newest: Any) -> None:
        bounds = self._bounds()
        if bounds is None or self._held.all_bytes <= bounds.most:
            return
        if self._held.weights[newest] > bounds.most:
            self._evict(newest)  # nothing else needs to make place for it
        while self._held.held_bytes > bounds.most:
            victim = self._held.victim(newest)
            if not victim or (not self._evict(victim[0]) and self._held.can_go(victim[0])):
                return
        # Towards `hot` in steps: the worker's event loop waits for the disk meanwhile.
        bound = max(bounds.hot, self._held.held_bytes - _STEP * self._held.weights[newest])
        while self._held.held_bytes > bound:
            victim = self._held.victim(newest, only_if_it_frees=True)
            if not victim or not self._evict(victim[0], Copy.MUST):
                return

    def _evict(self, key: Any, copy: Copy = Copy.MAY) -> bool:
        """Stop holding a value. Return False if it stays: it, or the disk, can't be written."""
        is_alone = self._held.is_alone(key)
        spilled = self._spilled.get(key)
        if copy is Copy.MUST and not (spilled.has_range if spilled is not None else is_alone):
            return False
        if not is_alone:
            copy = Copy.NO  # that would be a second one
        try:
            frames = encode(self._held.values[key])
        except MemoryError as error:
            self._complain(error)
            return False
        except Exception:
            _LOG.warning("%r can't be spilled: it stays in memory", key, exc_info=True)
            self._held.keep(key)
            return False
        is_written = spilled is not None and spilled.layout.is_of(frames.layout)
        if not is_written and not self._write(key, frames, copy):
            return False
        self._held.drop(key)
        return True

    def _write(self, key: Any, frames: Frames, copy: Copy) -> bool:
        in_memory = None if copy is Copy.NO else self._copy(key, frames)
        if in_memory is None and copy is Copy.MUST:
            return False  # on disk alone it gains nothing
        began = time.monotonic()
        try:
            path = self._files.write(frames.parts)
        except OSError as error:
            self._complain(error)
            return False
        seconds = time.monotonic() - began
        self._counted.add("disk-write", frames.layout.nbytes, seconds)
        before = self._spilled.pop(key, None)
        if before is not None:  # a task changed the value in place
            self._files.remove(before.path)
        self._spilled[key] = Spilled(frames.layout, path, in_memory)
        return True

    def _copy(self, key: Any, frames: Frames) -> Range | None:
        """Return a range with the value; None if it gets none."""
        on_gpu = hasattr(self._held.values[key], "__cuda_array_interface__")
        nbytes = frames.layout.nbytes
        if self._arena is None or on_gpu or nbytes < _SMALL_BYTES:
            return None
        try:
            # Coming back costs about as much as going.
            return self._arena.store(frames.parts, cost=self._counted.write_seconds(nbytes))
        except ArenaFullError:  # on disk it is safe
            return None

    def _complain(self, error: Exception) -> None:
        now = time.monotonic()
        if self._complained is not None and now - self._complained < _QUIET_SECONDS:
            return
        self._complained = now
        _LOG.error("A value can't be spilled and stays in memory: %s", error)

    def _bounds(self) -> Bounds | None:
        manager = self._manager and self._manager()
        if manager is None and (manager := manager_of(self)) is not None:
            self._manager = weakref.ref(manager)
        return bounds_of(manager, self._hot)

    def _resident_bytes(self) -> int:
        """Return the bytes of volatile ranges that are still in memory."""
        if self._arena is None:
            return 0
        now = self._arena.stats()
        return now.idle_bytes + now.offered_bytes


def _open_arena() -> Arena | None:
    try:
        return Arena(_ADDRESS_SPACE * machine_bytes(), name="dask")
    except ArenaFullError as error:
        _LOG.warning("Spilled values are on disk only: %s", error)
        return None
