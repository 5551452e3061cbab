"""Ranges: memory that is pinned, volatile or purged."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Any, Literal, Self

from vrange._core import ffi, hit, lib
from vrange.errors import ArenaFullError
from vrange.sizes import format_bytes

State = Literal["pinned", "volatile", "purged", "freed"]
_BLOCKS_AT_ONCE = 256


@dataclass(frozen=True)
class Purged:
    """The blocks that a pin found lost. It is falsy if there are none.

    Attributes
    ----------
    blocks : tuple[tuple[int, int], ...]
        The offset and length of each lost block, in bytes.

    """

    blocks: tuple[tuple[int, int], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.blocks)


def _references(holder: Any) -> int:
    return sys.getrefcount(holder._lease)


# What the call itself adds differs between versions of CPython.
_REFERENCES_WITHOUT_VIEWS = _references(SimpleNamespace(_lease=object()))


class Range:
    """A part of an arena with one state, made by `Arena.allocate`.

    A pinned range is ordinary memory. If it is volatile, the kernel may reclaim its pages at any
    moment, and the next pin() reports that. As a context manager it is freed at the end.

    Notes
    -----
    Pins don't nest: a range is pinned or it is not. Any thread may call the methods. Using a freed
    range raises ValueError. The child of a fork has a copy of a pinned range; any other range is
    purged there.

    """

    def __init__(self, handle: int, nbytes: int, arena: object) -> None:
        self._handle = handle
        self._nbytes = nbytes
        self._arena = arena  # keeps it open
        self._lease: hit.Lease | None = hit.adopt(handle, nbytes, True)

    @property
    def nbytes(self) -> int:
        """The bytes that were asked for; the range itself consists of whole pages."""
        return self._nbytes

    @property
    def buffer(self) -> memoryview:
        """A writable view of the content.

        As long as a view, or anything made from it (slices, arrays, casts), is alive, the range
        can't be marked volatile or freed.

        Raises
        ------
        BufferError
            If the range is volatile.

        """
        self._check_alive()
        if self._lease is None:
            raise BufferError("the range is volatile: pin() it before its content is used")
        return memoryview(self._lease)

    @property
    def state(self) -> State:
        """One of "pinned", "volatile", "purged" (until refilled, pinned or not) and "freed"."""
        info = self._info()
        if info is None:
            return "freed"
        if info.lost or (
            info.state == lib.VRANGE_STATE_OFFERED and info.resident_bytes < info.bytes
        ):
            return "purged"
        return "pinned" if info.state == lib.VRANGE_STATE_PINNED else "volatile"

    @property
    def resident_bytes(self) -> int:
        """The bytes that are in memory now, in whole pages."""
        info = self._info()
        return 0 if info is None else int(info.resident_bytes)

    def mark_volatile(self, *, partial: bool = False, later: bool = False) -> None:
        """Let the kernel reclaim the range whenever it needs memory. Makes no system call.

        A range that is already volatile stays as it is.

        Parameters
        ----------
        partial : bool, default False
            Whether a loss purges only the pages that were lost. By default it purges the whole
            range.
        later : bool, default False
            Whether a view may be alive. The range then becomes volatile when the last one dies.

        Raises
        ------
        BufferError
            If a view of the buffer is alive, and `later` is false.

        """
        self._check_alive()
        if self._lease is None:
            return
        if not later:
            self._refuse_views("marked volatile")
        lib.vrange_set_partial(self._handle, partial)
        self._lease = None  # its pin goes with the last reference to it

    def pin(self) -> Purged:
        """Pin the range, and return what was lost.

        Lost content reads as zeros. Every pin() reports it until `refilled()` is called.

        Returns
        -------
        Purged
            Falsy if everything is there; otherwise `.blocks` lists what was lost.

        Raises
        ------
        ArenaFullError
            If there is no memory for the lost blocks.

        """
        self._check_alive()
        if self._lease is None:
            result = lib.vrange_pin(self._handle)
            if result < 0:
                raise ArenaFullError(f"the range can't be pinned: {os.strerror(-result)}")
            if result == lib.VRANGE_GONE:
                self._check_alive()
            self._lease = hit.adopt(self._handle, self._nbytes, True)
        return Purged(self._lost_blocks())

    def refilled(self) -> None:
        """Declare that the content is back.

        Raises
        ------
        ValueError
            If the range is not pinned.

        """
        self._check_alive()
        if self._lease is None:
            raise ValueError("the range is volatile: pin() it and put the content back first")
        lib.vrange_refilled(self._handle)

    def discard(self) -> None:
        """Make the kernel reclaim the range now: for tests, or when in a hurry.

        Raises
        ------
        ValueError
            If the range is pinned.

        """
        self._check_alive()
        result = lib.vrange_discard(self._handle)
        if result == lib.VRANGE_HELD:
            raise ValueError("the range is pinned: mark_volatile() before it is discarded")
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def free(self) -> None:
        """Return the range to its arena. A second call does nothing.

        Raises
        ------
        BufferError
            If a view is alive.

        """
        if self._info() is None:
            return
        if self._lease is not None:
            self._refuse_views("freed")
            self._lease = None
        lib.vrange_free(self._handle)

    def _abandon(self) -> None:
        """Release the range because its arena closes; memory that views hold remains theirs."""
        self._lease = None

    def _refuse_views(self, what: str) -> None:
        # `np.ndarray(buffer=…)` gives its view of the buffer back, and keeps a reference instead.
        if self._lease is not None and _references(self) > _REFERENCES_WITHOUT_VIEWS:
            raise BufferError(
                f"views of this range are still alive: delete them, or release() the memoryviews, "
                f"before it is {what}"
            )

    def _info(self) -> Any:
        info = ffi.new("vrange_range_info *")
        return info if lib.vrange_range_read(self._handle, info) == lib.VRANGE_OK else None

    def _check_alive(self) -> None:
        if hit.state(self._handle) == lib.VRANGE_STATE_FREED:
            raise ValueError("the range was freed, or its arena closed")

    def _lost_blocks(self) -> tuple[tuple[int, int], ...]:
        capacity = _BLOCKS_AT_ONCE
        while True:
            blocks = ffi.new("vrange_block[]", capacity)
            count = lib.vrange_lost_blocks(self._handle, blocks, capacity)
            if count <= capacity:
                # The last block ends with the range's last page, not with the bytes asked for.
                return tuple(
                    (b.offset, min(b.bytes, self._nbytes - b.offset))
                    for b in blocks[0:count]
                    if b.offset < self._nbytes
                )
            capacity = count

    def __len__(self) -> int:
        return self._nbytes

    def __enter__(self) -> Self:
        self._check_alive()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.free()

    def __del__(self) -> None:
        # Views that are still alive keep the memory; it is then freed with the last of them.
        if lib is not None and hasattr(self, "_handle"):
            lib.vrange_free(self._handle)

    def __repr__(self) -> str:
        return f"<Range of {format_bytes(self._nbytes)}, {self.state}>"
