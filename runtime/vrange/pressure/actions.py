"""The built-in actions when the level changes: on hot values, idle stacks and the heap."""

from __future__ import annotations

import time
from typing import Literal

from vrange._core import hit, lib
from vrange._stacks.trim import trim_idle_stacks

__all__ = ["ACTIONS", "Action", "Actions"]

Action = Literal["hot", "stacks", "heap"]
ACTIONS: tuple[Action, ...] = ("hot", "stacks", "heap")

_NATIVE = {
    "hot": lib.VRANGE_PRESSURE_OFFER_HOT,
    "stacks": lib.VRANGE_PRESSURE_TRIM_STACKS,
    "heap": lib.VRANGE_PRESSURE_TRIM_HEAP,
}
# The fraction of its bound that a hot front may use at each level.
_HOT_SHARE = {"normal": 1.0, "elevated": 0.5, "critical": 0.0}

# A program can stay near its limit for hours, as a Dask worker does, whose limit is its target too.
# Then an action that returns little is repeated so rarely that it takes this fraction of the time.
_COST_SHARE = 0.02
_MOST_SECONDS = 10.0  # between repetitions: usage may have risen for another reason meanwhile
_WORTH = 1 / 64  # of the bytes in use: an action that returns as much is always repeated


class Actions:
    """The built-in actions, each with a least interval. Only the dispatcher calls them.

    Any thread may read the counts.
    """

    def __init__(self, which: tuple[Action, ...], min_interval: float) -> None:
        self.done: dict[str, int] = dict.fromkeys(which, 0)
        self.returned_bytes: dict[str, int] = dict.fromkeys(which, 0)
        self.failed: dict[str, str] = {}  # the last reason
        self.skipped: dict[str, int] = dict.fromkeys(which, 0)
        self.grown = 0
        self._min_interval = min_interval
        self._free_at: dict[str, float] = dict.fromkeys(which, 0.0)
        self._rests_until: dict[tuple[str, str], float] = {}  # by action and level
        self._pending: set[str] = set()
        self._share = 1.0

    def ask(self, level: str) -> None:
        """Request all actions: the level rose, or usage grew while the level stayed up."""
        now = time.monotonic()
        for action in self._free_at:
            self._pending.add(action)
            if self._due(action, level) > now:
                self.skipped[action] += 1
                lib.vrange_pressure_acted(_NATIVE[action], lib.VRANGE_PRESSURE_SKIPPED, 0)

    def relax(self, level: str) -> None:
        """Let the hot fronts grow again, because the level fell.

        At the level normal, nothing is left to do.
        """
        if level == "normal":
            self._pending.clear()
        if "hot" in self.done and _HOT_SHARE[level] > self._share:
            self._use_share(_HOT_SHARE[level])
            self.grown += 1
            lib.vrange_pressure_acted(lib.VRANGE_PRESSURE_GROW_HOT, lib.VRANGE_PRESSURE_DONE, 0)

    def run(self, level: str, used_bytes: int) -> float | None:
        """Perform the pending actions that may run now.

        Return the seconds until the next may run, or None if none is pending.
        """
        for action in ACTIONS:
            began = time.monotonic()
            if action in self._pending and self._due(action, level) <= began:
                self._pending.discard(action)
                self._free_at[action] = began + self._min_interval
                returned = self._do(action, level)
                ended = time.monotonic()
                if returned < _WORTH * used_bytes:
                    rest = min((ended - began) / _COST_SHARE, _MOST_SECONDS)
                    self._rests_until[action, level] = ended + rest
        waiting = [self._due(action, level) for action in self._pending]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def close(self) -> None:
        """Restore the hot fronts: nothing gives way any more."""
        if "hot" in self.done:
            self._use_share(1.0)

    def _due(self, action: str, level: str) -> float:
        return max(self._free_at[action], self._rests_until.get((action, level), 0.0))

    def _do(self, action: Action, level: str) -> int:
        try:
            returned = self._perform(action, level)
        except Exception as error:
            self.failed[action] = f"{type(error).__name__}: {error}"
            lib.vrange_pressure_acted(_NATIVE[action], lib.VRANGE_PRESSURE_FAILED, 0)
            return 0
        self.done[action] += 1
        self.returned_bytes[action] += returned
        lib.vrange_pressure_acted(_NATIVE[action], lib.VRANGE_PRESSURE_DONE, returned)
        return returned

    def _perform(self, action: Action, level: str) -> int:
        if action == "hot":
            return self._use_share(_HOT_SHARE[level])
        if action == "stacks":
            return trim_idle_stacks()
        from vrange.heap import trim  # imported here, as programs that only watch don't need it

        # Trimming the interpreter's own allocator takes longer, so do it only when it is urgent.
        return int(trim(deep=level == "critical"))

    def _use_share(self, share: float) -> int:
        self._share = share
        return hit.use_hot_share(share)
