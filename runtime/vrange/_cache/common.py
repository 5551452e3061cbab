"""What a cache does alike on every platform, beside the operations of a dict."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from vrange._cache.info import CacheInfo
from vrange._cache.mapping import CacheMapping
from vrange._cache.not_kept import Source
from vrange._cache.parameters import CacheParameters
from vrange._closing import Closing

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_numbers = itertools.count(1)


class CommonCache(CacheMapping[K, V], Closing, Generic[K, V]):
    """A cache with a name and parameters, which ends with a `with` statement."""

    def __init__(self, name: str | None, parameters: CacheParameters) -> None:
        self._name = f"cache-{next(_numbers)}" if name is None else name
        self._parameters = parameters
        self._source = Source(self._name)

    @property
    def name(self) -> str:
        """The label of this cache's metrics."""
        return self._name

    @abstractmethod
    def info(self) -> CacheInfo:
        """Return the figures of the cache."""

    def _repr_html_(self) -> str:
        """Return HTML for notebooks: a bar of the requests by outcome, and a line of figures."""
        return self.info()._repr_html_()

    def _values_are_of(self, function: Callable[..., Any]) -> None:
        """Note the function that is decorated, for warnings."""
        self._source.is_function(function)
