"""joblib.Memory over vrange: results stay in this process, where the kernel may take them.

::

    import vrange.integrations.joblib

    memory = joblib.Memory("features", backend="vrange", verbose=0)
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from joblib import register_store_backend
from joblib._store_backends import StoreBackendBase, StoreBackendMixin

from vrange.integrations._atomic import AtomicCache, named

__all__ = ["VolatileStoreBackend"]

# The code of the functions whose results are there. It is not volatile: joblib compares with it,
# and would return what an older version of a function had computed.
_codes: dict[AtomicCache, dict[str, str]] = {}


class VolatileStoreBackend(StoreBackendMixin, StoreBackendBase):
    """The backend "vrange": all of a process share the results of the same location and options.

    Notes
    -----
    `Memory(location, backend="vrange", backend_options=...)` takes `max_bytes`, `max_entries`,
    `hot_bytes` and `arena_bytes`. `location` is a name. With `mmap_mode="r"` arrays are read-only
    and are not copied. Otherwise each caller gets its own. What `call_and_shelve` returns may be
    gone, too: its `get()` raises KeyError then.
    """

    def configure(
        self, location: str, verbose: int = 1, backend_options: dict[str, Any] | None = None
    ) -> None:
        """Use the results of `location`, with options of a cache."""
        options = dict(backend_options or {})
        self.compress = options.pop("compress", False)
        self.mmap_mode = options.pop("mmap_mode", None)
        if self.compress or self.mmap_mode not in (None, "r"):
            raise ValueError(
                "the backend 'vrange' keeps results in memory: it takes compress=False and "
                f"mmap_mode None or 'r', not {self.compress!r} and {self.mmap_mode!r}"
            )
        options.setdefault("copy", self.mmap_mode is None)
        self.location, self.verbose, self._options = str(location), verbose, options
        self._open()

    def _open(self) -> None:
        self._cache = named(self.location, self._options)
        self._code = _codes.setdefault(self._cache, {})
        self._found = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        volatile = ("_cache", "_code", "_found")
        return {name: value for name, value in vars(self).items() if name not in volatile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    # joblib asks whether there is a result, and then for its metadata and the result. What was
    # found is held between these calls, because the kernel could take it there.

    def contains_item(self, call_id: Sequence[str]) -> bool:
        """Return whether there is a result of a call."""
        key = tuple(call_id)
        found = self._cache.get(key)
        metadata = self._cache.get((*key, "metadata"))
        self._found.item = None
        if found is None or metadata is None:
            return False
        self._found.item = key, found, metadata
        return True

    def load_item(
        self, call_id: Sequence[str], verbose: int = 1, timestamp: Any = None, metadata: Any = None
    ) -> Any:
        """Return the result of a call. Raise KeyError if it is gone."""
        key = tuple(call_id)
        item, self._found.item = getattr(self._found, "item", None), None
        found = item[1] if item is not None and item[0] == key else self._cache.get(key)
        if found is None:
            raise KeyError(f"the result {'/'.join(key)} is gone; compute it again")
        return found[0]

    def dump_item(self, call_id: Sequence[str], item: Any, verbose: int = 1) -> None:
        """Store the result of a call, if it can be kept."""
        self._cache.set(tuple(call_id), (item,))

    def clear_item(self, call_id: Sequence[str]) -> None:
        """Remove the result of a call."""
        self._found.item = None
        self._cache.delete(tuple(call_id))

    def get_metadata(self, call_id: Sequence[str]) -> dict[str, Any]:
        """Return what joblib noted of a call."""
        item = getattr(self._found, "item", None)
        if item is not None and item[0] == tuple(call_id):
            return dict(item[2])
        return dict(self._cache.get((*call_id, "metadata")) or {})

    def store_metadata(self, call_id: Sequence[str], metadata: dict[str, Any]) -> None:
        """Store what joblib noted of a call."""
        self._cache.set((*call_id, "metadata"), metadata)

    def contains_path(self, call_id: Sequence[str]) -> bool:
        """Return whether a function has results."""
        return call_id[0] in self._code

    def clear_path(self, call_id: Sequence[str]) -> None:
        """Remove the results of a function."""
        self._code.pop(call_id[0], None)
        for key in list(self._cache):
            if key[0] == call_id[0]:
                self._cache.delete(key)

    def clear(self) -> None:
        """Remove all results."""
        self._code.clear()
        self._cache.clear()

    def store_cached_func_code(self, call_id: Sequence[str], func_code: str | None = None) -> None:
        """Store the code of a function."""
        if func_code is not None:
            self._code[call_id[0]] = func_code

    def get_cached_func_code(self, call_id: Sequence[str]) -> str:
        """Return the code of a function. Raise OSError if there is none."""
        try:
            return self._code[call_id[0]]
        except KeyError:
            raise OSError(f"there is no code of {call_id[0]}") from None

    def get_items(self) -> list[Any]:
        """Return nothing: `Memory.reduce_size` removes nothing; vrange evicts by itself."""
        return []

    def _open_item(self, f: Any, mode: str) -> Any:
        raise NotImplementedError("results are no files")

    def _item_exists(self, location: str) -> bool:
        return False

    def _move_item(self, src: str, dst: str) -> None:
        raise NotImplementedError("results are no files")

    def create_location(self, location: str) -> None:
        """Do nothing: a location is a name."""

    def clear_location(self, location: str) -> None:
        """Remove all results."""
        self.clear()


register_store_backend("vrange", VolatileStoreBackend)
