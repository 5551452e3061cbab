"""Ranges: memory that is pinned, volatile or purged."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from vrange._core import ffi, hit, lib
from vrange.errors import ArenaFullError
from vrange.sizes import format_bytes

if TYPE_CHECKING:
    from vrange.arena import Arena

State = Literal["pinned", "volatile", "purged", "freed"]
_BLOCKS_AT_ONCE = 256


@dataclass(frozen=True)
class Purged:
    """What a pin found lost: `blocks` lists (offset, length) in bytes. Falsy where nothing was."""

    blocks: tuple[tuple[int, int], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.blocks)


class Range:
    """A part of an arena with one state; made by `Arena.allocate`.

    Pinned, it is ordinary memory. Volatile, the kernel may take its pages at any moment, and the
    next pin() tells. Pins don't nest: a range is pinned or it is not. Methods may be called from
    any thread. Using a freed range raises ValueError. As a context manager it is freed at the end.
    """

    def __init__(self, handle: int, nbytes: int, arena: Arena) -> None:
        self._handle = handle
        self._nbytes = nbytes
        self._arena = arena
        self._lease: hit.Lease | None = hit.adopt(handle, nbytes, True)

    @property
    def nbytes(self) -> int:
        """The bytes asked for; the range itself is whole pages."""
        return self._nbytes

    @property
    def buffer(self) -> memoryview:
        """A writable view of the content. BufferError while the range is volatile.

        A view keeps the range from being marked volatile or freed as long as it lives, whatever is
        made from it: slices, arrays, casts.
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
        """How many bytes of it are in memory now; whole pages."""
        info = self._info()
        return 0 if info is None else int(info.resident_bytes)

    def mark_volatile(self, *, partial: bool = False) -> None:
        """Gives the range up to the kernel, which may take it, or not, whenever it likes.

        On loss all of it is purged, or with `partial` only the pages that were lost. No system
        call. BufferError while a view of the buffer is alive. A range that is volatile stays as it
        is.
        """
        self._check_alive()
        if self._lease is None:
            return
        if self._lease.exports == 0:
            lib.vrange_set_partial(self._handle, partial)
        self._lease.release()
        self._lease = None

    def pin(self) -> Purged:
        """Takes the range back: falsy if all is there, else `.blocks` tells what was lost.

        What was lost reads as zeros, and goes on being told by every pin() until `refilled()`.
        Raises ArenaFullError where there is no memory to put behind the lost blocks.
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
        """Says that the content is back. ValueError while the range is not pinned."""
        self._check_alive()
        if self._lease is None:
            raise ValueError("the range is volatile: pin() it, put the content back, then tell")
        lib.vrange_refilled(self._handle)

    def discard(self) -> None:
        """Makes the kernel take it now, for tests and for hurry. ValueError while it is pinned."""
        self._check_alive()
        result = lib.vrange_discard(self._handle)
        if result == lib.VRANGE_HELD:
            raise ValueError("the range is pinned: mark_volatile() before it is discarded")
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def free(self) -> None:
        """Gives the range back to its arena; once. BufferError while a view is alive."""
        if self._info() is None:
            return
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        lib.vrange_free(self._handle)

    def _abandon(self) -> None:
        """The arena closes: what views hold stays theirs."""
        if self._lease is not None and self._lease.exports == 0:
            self._lease.release()
        self._lease = None

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
        # Views that are still alive keep the memory: freed then means freed with the last of them.
        if lib is not None and hasattr(self, "_handle"):
            lib.vrange_free(self._handle)

    def __repr__(self) -> str:
        return f"<Range of {format_bytes(self._nbytes)}, {self.state}>"
