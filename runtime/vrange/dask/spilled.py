"""One spilled value: on disk for good, and in memory for as long as that is spare."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from vrange import ArenaFullError, Range
from vrange.dask.frames import Layout, checksum, decode
from vrange.dask.spill_files import SpillFiles
from vrange.dask.volatile_copies import VolatileCopies

__all__ = ["SpillFileDamagedError", "Spilled"]


class SpillFileDamagedError(OSError):
    """A spill file has not the bytes that were written to it."""


class Spilled:
    """A value that was written to a file once, and lies in a volatile range while there is room.

    Values that are made from it have their arrays in the range. As long as such an array is alive,
    the range is pinned.

    Parameters
    ----------
    layout : Layout
        How the value was encoded.
    path : Path
        The file that it was written to.
    in_memory : Range or None
        The range that it was copied to; None: the value is on disk only.
    may_have_range : bool, default True
        Whether it gets a range once there is room.

    """

    def __init__(
        self, layout: Layout, path: Path, in_memory: Range | None, may_have_range: bool = True
    ) -> None:
        self.layout = layout
        self._may_have_range = may_have_range
        self.path = path
        self._range = in_memory
        self._let_go()

    def bring_in(self, files: SpillFiles, copies: VolatileCopies, cost: float | None) -> None:
        """Copy the file, which was written a moment ago, to a range. Without room, do nothing.

        The value itself is gone by then, so it is never in memory twice.
        """
        if self._range is not None or not self._may_have_range:
            return
        fresh = copies.make(self.layout.nbytes, cost)
        if fresh is not None:
            with suppress(OSError):  # the next use tells
                self._read(files, fresh.buffer)
                self._range = fresh
                self._let_go()

    def load(self, files: SpillFiles, copies: VolatileCopies) -> tuple[object, int]:
        """Return the value, and how many bytes were read from disk for it.

        What is read lies in a range from now on, if there is room.

        Raises
        ------
        OSError
            If the file can't be read.
        SpillFileDamagedError
            If its content has changed.

        """
        memory, read = self._memory(files, copies)
        try:
            return decode(self.layout, memory), read
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Let the range be volatile once no array lies in it."""
        if self._range is not None:
            self._range.mark_volatile(later=True)

    @property
    def has_range(self) -> bool:
        """Whether it is in memory as well, unless that was needed."""
        return self._range is not None

    def drop_range(self) -> None:
        """Free the range. Arrays in it that are alive keep their memory."""
        self._range = None

    def _memory(self, files: SpillFiles, copies: VolatileCopies) -> tuple[memoryview, int]:
        nbytes = self.layout.nbytes
        if self._range is not None:
            try:
                lost = bool(self._range.pin())
            except ArenaFullError:
                self.drop_range()  # there is no memory for whole pages: exactly its bytes may fit
            else:
                memory = self._range.buffer
                if not lost:
                    return memory, 0
                try:
                    self._read(files, memory)
                except BaseException:
                    self.drop_range()  # it holds anything
                    raise
                self._range.refilled()
                return memory, nbytes
        fresh = copies.make(nbytes) if self._may_have_range else None
        memory = memoryview(bytearray(nbytes)) if fresh is None else fresh.buffer
        self._read(files, memory)
        self._range = fresh
        return memory, nbytes

    def _read(self, files: SpillFiles, memory: memoryview) -> None:
        files.read_into(self.path, memory)
        if checksum(self.layout.split(memory)) != self.layout.checksum:
            raise SpillFileDamagedError(
                f"{self.path} has other bytes than were written to it: the value is lost, and its "
                "task must run again"
            )
