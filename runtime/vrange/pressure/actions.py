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
        self._pending: set[str] = set()
        self._share = 1.0

    def ask(self) -> None:
        """Request all actions: the level rose, or usage grew while the level stayed up."""
        now = time.monotonic()
        for action, free_at in self._free_at.items():
            self._pending.add(action)
            if free_at > now:
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

    def run(self, level: str) -> float | None:
        """Perform the pending actions that may run now.

        Return the seconds until the next may run, or None if none is pending.
        """
        for action in ACTIONS:
            if action in self._pending and self._free_at[action] <= time.monotonic():
                self._pending.discard(action)
                self._free_at[action] = time.monotonic() + self._min_interval
                self._do(action, level)
        waiting = [self._free_at[action] for action in self._pending]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def close(self) -> None:
        """Restore the hot fronts: nothing gives way any more."""
        if "hot" in self.done:
            self._use_share(1.0)

    def _do(self, action: Action, level: str) -> None:
        try:
            returned = self._perform(action, level)
        except Exception as error:
            self.failed[action] = f"{type(error).__name__}: {error}"
            lib.vrange_pressure_acted(_NATIVE[action], lib.VRANGE_PRESSURE_FAILED, 0)
            return
        self.done[action] += 1
        self.returned_bytes[action] += returned
        lib.vrange_pressure_acted(_NATIVE[action], lib.VRANGE_PRESSURE_DONE, returned)

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
