"""How long a caller waits for another caller's computation."""

from __future__ import annotations

import time

LOOK_SECONDS = 1.0  # how often a waiter checks whether the leader's event loop still runs


class Patience:
    """How long a caller waits, and how long until it next checks that the wait can end."""

    def __init__(self, timeout: float | None) -> None:
        self._until = None if timeout is None else time.monotonic() + timeout

    def next_wait(self, looks: bool) -> float | None:
        """Return the seconds until the next check. None: no check is needed."""
        seconds = LOOK_SECONDS if looks else None
        if self._until is None:
            return seconds
        left = max(0.0, self._until - time.monotonic())
        return left if seconds is None else min(left, seconds)

    def is_over(self) -> bool:
        """Return whether the timeout has passed."""
        return self._until is not None and time.monotonic() >= self._until

    def next_acquire(self, looks: bool) -> float:
        """Return the same as a timeout for Lock.acquire."""
        seconds = self.next_wait(looks)
        return -1 if seconds is None else seconds
