"""The copies of spilled values that stay in memory, as volatile ranges."""

from __future__ import annotations

import logging

from vrange import Arena, ArenaFullError, Range
from vrange._cgroup.limits import machine_bytes
from vrange._ranges.reserve import offer
from vrange.dask.frames import Frames

__all__ = ["VolatileCopies"]

_LOG = logging.getLogger("vrange.dask")
_ADDRESS_SPACE = 4  # of the machine's memory; an arena reserves no memory


class VolatileCopies:
    """Makes volatile ranges, as long as there is address space and room for them.

    Attributes
    ----------
    arena : Arena or None
        Where they lie; None: there are none, because address space is lacking or after `close`.

    """

    def __init__(self) -> None:
        self.arena: Arena | None
        try:
            self.arena = Arena(_ADDRESS_SPACE * machine_bytes(), name="dask")
        except ArenaFullError as error:
            _LOG.warning("Spilled values are on disk only: %s", error)
            self.arena = None

    def copy(self, frames: Frames, cost: float | None) -> Range | None:
        """Return a range with an encoded value; None if there is no room for a second one."""
        if self.arena is None:
            return None
        try:
            return self.arena.store(frames.parts, cost=cost)
        except ArenaFullError:
            return None

    def make(self, nbytes: int, cost: float | None = None) -> Range | None:
        """Return a range for a value that is on disk; None if there is no room."""
        if self.arena is None:
            return None
        try:
            return self.arena.allocate(nbytes, cost=cost, if_room=True)
        except ArenaFullError:
            return None

    def give_up(self, nbytes: int, *, by_offering: bool) -> None:
        """Make what counts as the process's memory less, by the least valuable ranges."""
        if self.arena is None:
            return
        if by_offering:
            offer(nbytes)
        else:
            self.arena.discard(nbytes)

    def resident_bytes(self, *, offered: bool) -> int:
        """Return the bytes that are idle and, if asked for, the offered ones."""
        if self.arena is None:
            return 0
        now = self.arena.stats()
        return now.idle_bytes + (now.offered_bytes if offered else 0)

    def close(self) -> None:
        """Free the address space. Arrays that tasks hold stay valid."""
        if self.arena is not None:
            self.arena.close()
            self.arena = None
