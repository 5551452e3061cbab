"""The index that processes share, as Python calls it (native/core/service)."""

from __future__ import annotations

import atexit
import errno
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vrange._cache.collector import room_for
from vrange._core import ffi, hit, lib
from vrange._counters.lock import locked
from vrange._ranges.set_limit import memory_limit
from vrange._service import place
from vrange.errors import VrangeError

__all__ = ["Found", "Index", "NotSharedError", "close_index", "open_index"]

_BUCKETS = (1 << 20) // (8 * lib.VRANGE_BUCKET_WORDS)  # 1 MiB
_BLOCK_BYTES = lib.VRANGE_RECORD_BLOCK_BYTES
_BLOCKS_MOST = (32 << 20) // _BLOCK_BYTES
_BLOCKS_LEAST = 64
_SHARE_OF_LIMIT = 32  # the kernel can't take an index
_BUFFERS_KEPT = 32
_SCRATCHES_KEPT = 4
_SCRATCH_BYTES = 1 << 20


_unzeroed = _new_found = ffi.new_allocator(should_clear_after_alloc=False)
_find = lib.vrange_shared_find
_ROOM = lib.VRANGE_PAYLOAD_MOST


class NotSharedError(VrangeError):
    """The processes can't share a cache here."""


class Found:
    """A record, and a copy of its payload."""

    __slots__ = ("kind", "native", "payload", "stamp")

    def __init__(self, native: Any, payload: bytes) -> None:
        self.native, self.payload = native, payload
        self.kind, self.stamp = native.kind, native.stamp

    @property
    def nbytes(self) -> int:
        """The bytes of the value."""
        return int(self.native.bytes)

    @property
    def expires_ns(self) -> int:
        """When it expires, by the monotonic clock; 0: never."""
        return int(self.native.expires_ns)

    @property
    def landing(self) -> int:
        """Of what a computation raised: the landing that it belongs to."""
        return int(self.native.flight)

    @property
    def token(self) -> tuple[int, int, int]:
        """The place of the record's word, the word, and the stamp."""
        return self.native.at, self.native.word, self.stamp


class Copy:
    """Memory with the bytes of a large value.

    It is taken from a few buffers, because the C library returns memory of this size to the kernel
    and gets it again with a page fault for each page, each time.
    """

    def __init__(self, nbytes: int, buffers: deque[Any]) -> None:
        self.nbytes, self._buffers = nbytes, buffers
        self.is_lent = nbytes <= _SCRATCH_BYTES
        if not self.is_lent:
            self.memory = _unzeroed("char[]", nbytes)
            return
        try:
            self.memory = buffers.pop()
        except IndexError:
            self.memory = _unzeroed("char[]", _SCRATCH_BYTES)

    def view(self) -> memoryview:
        """Return the bytes. If they are lent, they change once the copy is given back."""
        return memoryview(ffi.buffer(self.memory, self.nbytes))

    def give_back(self) -> None:
        """Let others use the buffer, if it is lent."""
        if self.is_lent:
            self._buffers.append(self.memory)


class Index:
    """One mapped index. All caches of this process with its name use it.

    The mapping stays until the process ends, because another thread may read it at any time.
    """

    pointer: Any

    def __init__(self, path: Path) -> None:
        self.path = path
        self.users = 0
        self.is_joined = False
        self._buffers: deque[Any] = deque(maxlen=_BUFFERS_KEPT)
        self._scratches: deque[Any] = deque(maxlen=_SCRATCHES_KEPT)
        self._renewing = threading.Lock()

    # ---- becoming a member -------------------------------------------------------------------

    def open(self) -> None:
        """Map the index and join its members. Raise NotSharedError if that is impossible."""
        with locked(self.path.parent) as is_held:
            if not is_held:
                raise NotSharedError(f"the lock of {self.path.parent} can't be had")
            for orphan in place.orphans(self.path.parent):
                place.remove(orphan)
            self._map()
            if lib.vrange_shared_members(self.pointer) == 0 and self.count():
                # What other processes left is not this service's: its code may be another one.
                lib.vrange_shared_leave(self.pointer)
                place.remove(self.path)
                self._map()

    def count(self) -> int:
        """Return the number of values."""
        return int(lib.vrange_shared_count(self.pointer))

    def _map(self) -> None:
        blocks = memory_limit() // _SHARE_OF_LIMIT // _BLOCK_BYTES
        blocks = max(_BLOCKS_LEAST, min(_BLOCKS_MOST, blocks))
        out = ffi.new("vrange_shared **")
        for _ in range(2):
            result = lib.vrange_shared_open(os.fsencode(self.path), _BUCKETS, blocks, out)
            if result != -errno.EBADMSG or not place.is_unused(self.path):
                break
            place.remove(self.path)  # a process was killed while it made the file
        if result == -errno.EPROTO:
            raise NotSharedError(f"another version of vrange made {self.path}")
        if result == -errno.EBADMSG:
            raise NotSharedError(f"{self.path} is not an index, or not whole")
        self._check(result)
        self._check(lib.vrange_shared_join(out[0]))
        self.pointer = out[0]
        self.is_joined = True

    def _check(self, result: int) -> None:
        if result == -errno.EBADMSG:
            raise NotSharedError(f"{self.path} is not whole any more")
        if result < 0:
            raise NotSharedError(f"{self.path}: {os.strerror(-result)}")

    def is_member(self) -> bool:
        """Return whether this process may publish. The child of a fork may not until it joins."""
        return bool(lib.vrange_shared_identity(self.pointer))

    def renew(self) -> None:
        """Join the members in the child of a fork. Raise NotSharedError if that is impossible."""
        with self._renewing:
            if self.is_member():
                return
            with locked(self.path.parent) as is_held:
                is_same = lib.vrange_shared_is_at(self.pointer, os.fsencode(self.path))
                if is_held and is_same:
                    self._check(lib.vrange_shared_join(self.pointer))
                    self.is_joined = True
                    return
            self.open()

    def leave(self) -> None:
        """Stop being a member; remove the file with the last member."""
        if not self.is_member():
            return
        with locked(self.path.parent) as is_held:
            lib.vrange_shared_leave(self.pointer)
            path = os.fsencode(self.path)
            if (
                is_held
                and lib.vrange_shared_members(self.pointer) == 0
                and lib.vrange_shared_is_at(self.pointer, path)
            ):
                place.remove(self.path)
                lib.vrange_shared_empty(self.pointer)

    # ---- reading -------------------------------------------------------------------------------

    def find(self, digest: bytes) -> Found | None:
        """Return the record of a key, or None."""
        native = _new_found("vrange_shared_found *")
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = _unzeroed("char[]", _ROOM)
        result = _find(self.pointer, digest, buffer, _ROOM, native)
        if result:
            self._buffers.append(buffer)
            if result == -errno.ESRCH:
                self.renew()
                return self.find(digest)
            return None
        found = Found(native, ffi.unpack(buffer, native.payload_bytes))
        self._buffers.append(buffer)
        return found

    def records(self) -> Iterator[Found]:
        """Yield the records of all keys."""
        cursor = ffi.new("uint64_t *")
        buffer = _unzeroed("char[]", _ROOM)
        while True:
            native = _new_found("vrange_shared_found *")
            if lib.vrange_shared_next(self.pointer, cursor, buffer, _ROOM, native) != lib.VRANGE_OK:
                return
            yield Found(native, ffi.unpack(buffer, native.payload_bytes))

    def read(self, found: Found) -> Copy | None:
        """Return a copy of a large value out of its owner's memory; None if it is gone.

        Raise NotSharedError if this process may not read that memory, and MemoryError if there is
        no room for a copy.
        """
        nbytes = found.nbytes
        room = room_for(nbytes) if nbytes >= hit.ROOM_BYTES else None
        try:
            copy = Copy(nbytes, self._scratches)
            result = lib.vrange_shared_read(self.pointer, found.native, ffi.NULL, 0, copy.memory)
        finally:
            if room is not None:
                room.release()
        if result < 0:
            raise NotSharedError(
                f"this process can't read another one's memory ({os.strerror(-result)})"
            )
        return copy if result == lib.VRANGE_OK else None

    def drop(self, found: Found) -> bool:
        """Remove a record; False if it was removed or replaced already."""
        at, word, _ = found.token
        return bool(lib.vrange_shared_drop(self.pointer, at, word) == lib.VRANGE_OK)

    def is_own(self, found: Found) -> bool:
        """Return whether this process published the record."""
        return bool(found.native.owner == lib.vrange_shared_identity(self.pointer))


_open: dict[Path, Index] = {}
_opening = threading.RLock()


def open_index(cache: str) -> Index:
    """Return the index of a cache's name. Raise NotSharedError if there can't be one."""
    path = place.path_of(cache)
    if path is None:
        refusal = ffi.string(lib.vrange_segment_refusal()).decode(errors="replace")
        raise NotSharedError(f"there is no directory for an index ({refusal})")
    with _opening:
        index = _open.get(path)
        if index is None:
            index = Index(path)
            index.open()
            _open[path] = index
        elif not index.is_member():
            index.renew()
        index.users += 1
        return index


def close_index(index: Index) -> None:
    """Stop being a member with the last cache that uses the index."""
    with _opening:
        index.users -= 1
        if index.users == 0:
            _open.pop(index.path, None)
            index.leave()


def _leave_all() -> None:
    for index in list(_open.values()):
        index.leave()


def _be_no_member() -> None:
    """In the child of a fork: it joins before it reads or publishes."""
    global _opening
    _opening = threading.RLock()
    for index in _open.values():
        index._renewing = threading.Lock()
        index.is_joined = False


atexit.register(_leave_all)
os.register_at_fork(after_in_child=_be_no_member)
