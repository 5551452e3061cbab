"""A store that may fail: failures are counted, and what could not be removed is owed."""

from __future__ import annotations

import functools
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from vrange._cache.not_kept import warn
from vrange._cache.signal_errors import is_of_signal
from vrange.tiers.directory import TOKENS
from vrange.tiers.figures import Figures
from vrange.tiers.stores import Store

__all__ = ["FAILED", "TOKEN_BYTES", "Fallible"]

FAILED: Any = object()
TOKEN_BYTES = 12
_TOKEN_SECONDS = 7 * 86400.0  # of a removed key: no computation that began before it lasts longer
_OWED_MOST = 4096
_PAUSE_LEAST, _PAUSE_MOST = 1.0, 60.0
_NOTHING: Any = object()


class Fallible:
    """A store that may fail.

    Parameters
    ----------
    store : Store
        Where the bytes are.
    name : str
        The cache's name, for the warning.
    figures : Figures
        Where failures are counted.

    """

    def __init__(self, store: Store, name: str, figures: Figures) -> None:
        self._store, self._name, self._figures = store, name, figures
        self._owed: dict[str, bytes | None] = {}  # names to set or, with None, to delete
        self._paused_until = self._pause = 0.0
        self._has_warned = False
        self.renew_lock()

    def renew_lock(self) -> None:
        """Forget who holds the lock: in the child of a fork, that thread does not exist."""
        self._lock = threading.RLock()

    def attempt(self, do: Callable[[], Any]) -> Any:
        """Return do(), or FAILED. A store that failed is asked again after a pause."""
        if time.monotonic() < self._paused_until:
            return FAILED
        try:
            result = do()
        except Exception as error:
            if is_of_signal(error):
                raise
            self._figures.count_error()
            self._pause = min(max(_PAUSE_LEAST, 2 * self._pause), _PAUSE_MOST)
            self._paused_until = time.monotonic() + self._pause
            self.warn(f"it failed ({error!r}), and is asked again after a pause")
            return FAILED
        self._pause = 0.0
        return result

    def warn(self, text: str) -> None:
        """Warn, once for the cache."""
        if not self._has_warned:
            self._has_warned = True
            warn(f"cache {self._name!r}, below: {text}. info().below_errors counts", RuntimeWarning)

    def change(self, changes: dict[str, bytes | None], token_of_all: str) -> None:
        """Set names, or delete them. What fails is owed: nothing is read before it is done.

        If too much is owed, another token under `token_of_all` makes all values invalid instead.
        """
        with self._lock:
            self._owed.update(changes)
            if len(self._owed) > _OWED_MOST:
                self._owed = {token_of_all: secrets.token_bytes(TOKEN_BYTES)}
        self.is_settled()

    def is_settled(self) -> bool:
        """Do what is owed. Return whether nothing is."""
        for name, data in list(self._owed.items()):
            if self.attempt(functools.partial(self._do, name, data)) is FAILED:
                return False
            with self._lock:
                if self._owed.get(name, _NOTHING) == data:
                    del self._owed[name]
        return True

    def _do(self, name: str, data: bytes | None) -> None:
        if data is None:
            self._store.delete(name)
        else:
            is_of_key = f"/{TOKENS}/removed-" in name
            self._store.set(name, data, _TOKEN_SECONDS if is_of_key else None)
