"""Arenas: reserved address space, from which ranges are cut."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Sequence
from typing import Any, Self

from vrange._closing import Closing
from vrange._core import ffi, lib
from vrange._counters.account import Account
from vrange._counters.stats import AccountStats
from vrange._ranges.address_space import address_space_left
from vrange._ranges.capabilities import capabilities
from vrange._ranges.range import Range
from vrange._ranges.reserve import ensure_reserve
from vrange.errors import ArenaFullError, VrangeError
from vrange.sizes import format_bytes, parse_bytes


def open_native_arena(size: int, account: Account) -> Any:
    """Open a native arena of `size` bytes. Raise ArenaFullError if address space is lacking."""
    return _open(lib.vrange_arena_open, size, account)


def open_growing_arena(most: int, account: Account) -> Any:
    """Open a native arena that reserves address space as it is used, up to `most` bytes."""
    return _open(lib.vrange_arena_open_growing, most, account)


def _open(open_arena: Any, size: int, account: Account) -> Any:
    capabilities()  # raises if VRANGE_RUNG names no rung
    ensure_reserve()
    pointer = ffi.new("vrange_arena **")
    result = open_arena(size, account.pointer, pointer)
    if result == -errno.ENOMEM:
        raise ArenaFullError(
            f"{format_bytes(size)} of address space for {account.name!r} can't be reserved: "
            f"{address_space_left()}"
        )
    if result < 0:
        raise VrangeError(f"an arena can't be opened: {os.strerror(-result)}")
    return pointer[0]


def close_native_arena(native: Any, account: Account) -> None:
    """Close it, for finalizers. The account is an argument so that it outlives the arena."""
    lib.vrange_arena_close(native)


def _nanoseconds(cost: float | None) -> int:
    if cost is None:
        return 0
    if cost < 0:
        raise ValueError(f"cost must not be negative, but is {cost}")
    return max(1, int(cost * 1e9))


class Arena(Closing):
    """Reserved address space, from which ranges are allocated. It commits no memory.

    Parameters
    ----------
    size : int or str
        Bytes, or a string such as "1GiB". It is rounded up to pages.
    name : str, default "arena"
        The label of its metrics.

    Raises
    ------
    ValueError, TypeError
        If `size` is not a size, or `name` not a name.
    ArenaFullError
        If the address space is not available.

    Notes
    -----
    Any thread may call all methods. The child of a fork has its own copy of every pinned range; all
    other ranges are purged there.

    References
    ----------
    The interface is that of the volatile ranges that were proposed for Linux in 2013:
    https://lwn.net/Articles/542504/

    Examples
    --------
    >>> with Arena("16MiB", name="demo") as arena:
    ...     r = arena.allocate(4096)
    ...     r.buffer[:5] = b"hello"
    ...     r.mark_volatile()
    ...     if r.pin():
    ...         r.buffer[:5] = b"hello"  # the kernel reclaimed it: put it back
    ...         r.refilled()
    ...     bytes(r.buffer[:5])
    b'hello'

    """

    def __init__(self, size: int | str, *, name: str = "arena") -> None:
        self._size = parse_bytes(size, "size")
        if self._size == 0:
            raise ValueError("size must be at least 1 byte, but is 0")
        self._account = Account(name, lib.VRANGE_KIND_ARENA)
        self._native = open_native_arena(self._size, self._account)
        self._finalizer = weakref.finalize(self, close_native_arena, self._native, self._account)
        self._finalizer.atexit = False
        self._ranges: weakref.WeakSet[Range] = weakref.WeakSet()

    @property
    def name(self) -> str:
        """The label of this arena's metrics."""
        return self._account.name

    @property
    def size(self) -> int:
        """The bytes of address space that were asked for."""
        return self._size

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return not self._finalizer.alive

    def allocate(
        self, nbytes: int | str, *, cost: float | None = None, if_room: bool = False
    ) -> Range:
        """Return a pinned, zeroed, page-aligned range.

        Parameters
        ----------
        nbytes : int or str
            The least size of the range.
        cost : float, optional
            The seconds that it takes to produce the content again. A range that costs more stays
            longer. The default is 1 ms.
        if_room : bool, default False
            Whether the range must fit below the memory limit, once less valuable volatile ranges
            are evicted for it.

        Raises
        ------
        ArenaFullError
            If the arena has no place left, or there is no memory.
        ValueError
            If the arena is closed, `nbytes` is not a size, or `cost` is negative.

        """
        size = parse_bytes(nbytes, "nbytes")
        if size == 0:
            raise ValueError("nbytes must be at least 1, but is 0")
        cost_ns = _nanoseconds(cost)
        self._check_open()
        handle = ffi.new("uint64_t *")
        result = lib.vrange_room_take(size) if if_room else 0
        if result == 0:
            result = lib.vrange_allocate(self._native, size, handle)
            if if_room:
                lib.vrange_room_give(size)
        allocated = self._allocated(result, handle, size)
        if cost_ns:
            lib.vrange_set_cost(handle[0], cost_ns)
        return allocated

    def _allocated(self, result: int, handle: Any, size: int) -> Range:
        if result < 0:
            raise ArenaFullError(
                f"no place for {format_bytes(size)} in arena {self.name!r} of "
                f"{format_bytes(self._size)}: {os.strerror(-result)}"
            )
        allocated = Range(handle[0], size, self)
        self._ranges.add(allocated)
        return allocated

    def store(
        self, parts: Sequence[bytes | bytearray | memoryview], *, cost: float | None = None
    ) -> Range:
        """Return a pinned range that holds these parts, one after another.

        Near the memory limit, less valuable volatile ranges are evicted for it.

        Parameters
        ----------
        parts : sequence of bytes-like
            The content. Each part is contiguous.
        cost : float, optional
            The seconds that it takes to produce the content again. A range that costs more stays
            longer. The default is 1 ms.

        Raises
        ------
        ArenaFullError
            If the arena has no place left, or there is no memory for a copy.
        ValueError
            If the arena is closed, the parts are empty, or `cost` is negative.

        Examples
        --------
        >>> with Arena("16MiB") as arena:
        ...     bytes(arena.store([b"hello ", b"world"]).buffer)
        b'hello world'

        """
        cost_ns = _nanoseconds(cost)
        views = [ffi.from_buffer(part) for part in parts]
        size = sum(map(len, views))
        if size == 0:
            raise ValueError("the parts must have at least 1 byte together")
        self._check_open()
        native = ffi.new("vrange_part[]", len(views))
        for part, view in zip(native, views, strict=True):
            part.data, part.bytes = view, len(view)
        handle = ffi.new("uint64_t *")
        # Two copies exist from now on. Evict for the second one, or don't make it.
        result = lib.vrange_room_take(size)
        if result == 0:
            result = lib.vrange_store(self._native, native, len(views), cost_ns, 0, handle)
            lib.vrange_room_give(size)
        return self._allocated(result, handle, size)

    def discard(self, nbytes: int | str) -> int:
        """Discard volatile ranges, the least valuable first, until `nbytes` are discarded.

        They are purged then, as if the kernel had reclaimed them.

        Returns
        -------
        int
            The bytes that were discarded. It is less than `nbytes` if nothing volatile is left.

        Raises
        ------
        ValueError
            If the arena is closed, or `nbytes` is not a size.

        """
        size = parse_bytes(nbytes, "nbytes")
        self._check_open()
        return int(lib.vrange_arena_shed(self._native, size))

    def stats(self) -> AccountStats:
        """Return the bytes by state, and what was purged so far."""
        return self._account.read()

    def close(self) -> None:
        """Free every range and the address space.

        Views of a pinned range stay valid until they are deleted; their memory is freed only then.
        """
        if self.closed:
            return
        for allocated in list(self._ranges):
            allocated._abandon()
        self._finalizer()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"arena {self.name!r} is closed")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __repr__(self) -> str:
        if self.closed:
            return f"<Arena {self.name!r}, closed>"
        now = self.stats()
        return (
            f"<Arena {self.name!r} of {format_bytes(self._size)}: {now.ranges} ranges, "
            f"{format_bytes(now.pinned_bytes)} pinned, "
            f"{format_bytes(now.idle_bytes + now.offered_bytes)} volatile, "
            f"{format_bytes(now.purged_bytes)} purged>"
        )
