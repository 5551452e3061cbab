"""The operations of a dict that MutableMapping lacks: copies, unions, defaults."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import (
    Hashable,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    ValuesView,
)
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

if TYPE_CHECKING:
    from vrange._cache.cache import VolatileCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_ABSENT = object()


class CacheMapping(MutableMapping[K, V], Generic[K, V]):
    """The operations of a dict, for any kind of cache."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The label of the cache's metrics."""

    @abstractmethod
    def _new(self, name: str | None) -> VolatileCache[K, V]:
        """Return an empty cache with the same parameters."""

    def copy(self, *, name: str | None = None) -> VolatileCache[K, V]:
        """Return a new cache with the same parameters and the values that are still there.

        Parameters
        ----------
        name : str, optional
            The label of its metrics. The default is as for a new cache.

        Returns
        -------
        VolatileCache
            The new cache. The ttl of its values starts again, with the ttl of the cache.

        """
        copy = self._new(name)
        copy.update(self)
        return copy

    # An entry may be purged at any moment, so iterators skip entries that have gone.

    def items(self) -> ItemsView[K, V]:
        """Return a view of the entries; iterating skips those that were purged meanwhile."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """Return a view of the values; iterating skips those that were purged meanwhile."""
        return _Values(self)

    def popitem(self) -> tuple[K, V]:
        """Remove and return an entry that is still there. Raise KeyError if there is none."""
        for key in self:
            value: Any = self.pop(key, _ABSENT)
            if value is not _ABSENT:
                return key, value
        raise KeyError(f"cache {self.name!r} is empty")

    def update(self, other: Any = (), /, **named: Any) -> None:
        """Store the entries of a mapping, or pairs of key and value, as `dict.update` does."""
        super().update(other.items() if isinstance(other, Mapping) else other, **named)

    def _missing(self, key: K) -> V:
        """Return `__missing__(key)` of a subclass, as a dict does, or raise KeyError."""
        missing = getattr(type(self), "__missing__", None)
        if missing is None:
            raise KeyError(key)
        return missing(self, key)  # type: ignore[no-any-return]

    def __or__(self, other: Mapping[K, V]) -> VolatileCache[K, V]:
        if not isinstance(other, Mapping):
            return NotImplemented
        both = self.copy()
        both.update(other)
        return both

    def __ror__(self, other: Mapping[K, V]) -> VolatileCache[K, V]:
        if not isinstance(other, Mapping):
            return NotImplemented
        both = self._new(None)
        both.update(other)
        both.update(self)
        return both

    def __ior__(self, other: Mapping[K, V] | Iterable[tuple[K, V]]) -> Self:
        self.update(other)
        return self

    def __copy__(self) -> VolatileCache[K, V]:
        return self.copy()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{type(self).__qualname__} {self.name!r} can't be pickled or deep-copied, because its "
            "values may be gone at any moment. Make a cache where it is needed, and leave it out "
            "of the pickle of the object that holds it (__getstate__)"
        )

    # A cache is equal only to itself: comparing values would read, and so pin, all of them.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class _Items(ItemsView[Any, Any]):
    _mapping: CacheMapping[Any, Any]

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for key in self._mapping:
            found = self._mapping.get(key, _ABSENT)
            if found is not _ABSENT:
                yield key, found


class _Values(ValuesView[Any]):
    _mapping: CacheMapping[Any, Any]

    def __iter__(self) -> Iterator[Any]:
        for _, value in self._mapping.items():
            yield value
