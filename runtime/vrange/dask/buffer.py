"""The results of a Dask worker: in memory, in volatile memory, and on disk."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import dask.config
from dask.utils import format_bytes
from distributed.sizeof import safe_sizeof

from vrange.dask.buffer_bounds import Owner
from vrange.dask.counting import Counted
from vrange.dask.frames import Frames, encode
from vrange.dask.held import Held
from vrange.dask.spill_files import SpillFiles
from vrange.dask.spilled import Spilled
from vrange.dask.volatile_copies import VolatileCopies
from vrange.sizes import parse_bytes

__all__ = ["SpilledSize", "VolatileBuffer"]

_LOG = logging.getLogger("vrange.dask")
_FAILED = -1  # what evict() returns to Dask if nothing could be evicted
_SMALL_BYTES = 4096
_STEP = 2  # as much is evicted for a new value as it has itself, times this
_QUIET_SECONDS = 60  # between two messages about the same trouble with the disk


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
    beyond_limit : bool, default True
        Whether volatile values may use memory beyond the worker's limit, where the machine and its
        cgroups have it to spare. They are offered to the kernel then, which takes them when it
        needs memory, as it takes cached files; the worker, the scheduler and the nanny do not count
        them. Turn it off where something else ends workers by their resident set.

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
        beyond_limit: bool = True,
    ) -> None:
        if max_spill is None:
            max_spill = dask.config.get("distributed.worker.memory.max-spill", False)
        most = None if max_spill is False else parse_bytes(max_spill, "max_spill")
        if isinstance(hot, float) and not 0 < hot <= 1:
            raise ValueError(f"hot must be a size, or a share from 0 to 1, not {hot!r}")
        if hot is not None and not isinstance(hot, float):
            hot = parse_bytes(hot, "hot")
        self._owner = Owner(hot)
        self._files = SpillFiles(Path(worker_local_directory, "storage"), most)
        self._copies = VolatileCopies()
        self._lock = threading.RLock()
        self._held = Held()
        self._spilled: dict[Any, Spilled] = {}  # those that are on disk; they can be in _fast, too
        self._counted = Counted()
        self._complained: float | None = None
        self.beyond_limit = beyond_limit

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
            bounds = self._owner.bounds(self)
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
                f"{format_bytes(self._copies.resident_bytes(offered=True))} are in memory>"
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

        Volatile values count as memory while the worker's own figure counts them.
        """
        with self._lock:
            out = self._held.all_bytes - self._held.held_bytes
            counted = self._copies.resident_bytes(offered=not self._owner.spares_offered(self))
            return SpilledSize(max(0, out - counted), self._files.total_bytes)

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
            is_spared = self._owner.spares_offered(self)
            while victim := self._held.victim():
                key = victim[0]
                weight = self._held.weights[key]
                if self._evict(key, Copy.MAY if is_spared else Copy.NO):
                    # If it lies in a range, only this reduces what counts as the process's memory.
                    spilled = self._spilled[key]
                    if spilled.has_range:
                        self._copies.give_up(spilled.layout.nbytes, by_offering=is_spared)
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
            self._copies.close()

    # ---- inside the lock -------------------------------------------------------------------------

    def _load(self, key: Any) -> object:
        began = time.monotonic()
        value, read = self._spilled[key].load(self._files, self._copies)
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
        self._evict_before_the_worker_reacts(newest)
        bounds = self._owner.bounds(self)
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

    def _evict_before_the_worker_reacts(self, newest: Any) -> None:
        """Keep free what a copy needs. Once the limit is reached, a value goes to disk alone."""
        nbytes, gone = self._held.weights[newest], 0
        missing = self._owner.missing_bytes(self, nbytes) if nbytes >= _SMALL_BYTES else 0
        while gone < missing:
            victim = self._held.victim(newest, only_if_it_frees=True)
            if not victim or not self._evict(victim[0]):
                break
            gone += self._held.weights[victim[0]]
        if gone:
            self._copies.give_up(gone, by_offering=True)

    def _evict(self, key: Any, copy: Copy = Copy.MAY) -> bool:
        """Stop holding a value. Return False if it stays: it, or the disk, can't be written."""
        is_alone = self._held.is_alone(key)
        spilled = self._spilled.get(key)
        if copy is Copy.MUST and not (spilled.has_range if spilled is not None else is_alone):
            return False
        if not is_alone and not self._owner.spares_offered(self):
            copy = Copy.NO  # it would count twice
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
        del frames  # views of the value, which is gone now
        if not is_written and copy is Copy.MAY:
            spilled = self._spilled[key]
            cost = self._counted.write_seconds(spilled.layout.nbytes)
            spilled.bring_in(self._files, self._copies, cost)
        return True

    def _write(self, key: Any, frames: Frames, copy: Copy) -> bool:
        in_memory, may_have_range = None, self._may_have_range(key, frames)
        if may_have_range and copy is not Copy.NO:
            # Coming back costs about as much as going.
            cost = self._counted.write_seconds(frames.layout.nbytes)
            in_memory = self._copies.copy(frames, cost)
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
        self._spilled[key] = Spilled(frames.layout, path, in_memory, may_have_range)
        return True

    def _may_have_range(self, key: Any, frames: Frames) -> bool:
        on_gpu = hasattr(self._held.values[key], "__cuda_array_interface__")
        return not on_gpu and frames.layout.nbytes >= _SMALL_BYTES

    def _complain(self, error: Exception) -> None:
        now = time.monotonic()
        if self._complained is not None and now - self._complained < _QUIET_SECONDS:
            return
        self._complained = now
        _LOG.error("A value can't be spilled and stays in memory: %s", error)
