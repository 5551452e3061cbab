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

    def discard_tag(self, tag: str) -> None:
        """Remove all values with a tag, at once: `set`, `get_or_compute` and `cached` give tags.

        It takes the same time however many there are. In a shared cache it holds for all processes.

        Parameters
        ----------
        tag : str
            The tag.

        Raises
        ------
        TypeError
            If the cache was made without `tags=True`.

        Examples
        --------
        >>> import vrange
        >>> cache = vrange.VolatileCache(name="pages", tags=True)
        >>> cache.set("/home/7", "Hello", tags=["user:7"])
        >>> cache.discard_tag("user:7")
        >>> "/home/7" in cache
        False
        >>> cache.close()

        """
        raise self._has_no_tags()

    def _has_no_tags(self) -> TypeError:
        return TypeError(f"cache {self.name!r} has no tags: make it with VolatileCache(tags=True)")

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all values that are to be kept below are written there.

        Parameters
        ----------
        timeout : float, optional
            The seconds to wait at most.

        Returns
        -------
        bool
            Whether nothing is left to be written. Without `below=` always True.

        """
        return True

    def _values_are_of(self, function: Callable[..., Any]) -> None:
        """Note the function that is decorated, for warnings."""
        self._source.is_function(function)
