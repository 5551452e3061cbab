"""The calls of a decorated function: under which key each is cached, and what is known of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from vrange._cache.options import CachedOptions

if TYPE_CHECKING:
    from vrange._cache.info import CacheInfo


MakeKey = Callable[[tuple[Any, ...], dict[str, Any]], Hashable]


class Calls:
    """The calls of `function`, cached in `cache`, each under what `make_key(args, kwargs)` returns.

    It has no reference to what the function was decorated to, which would be a cycle: dropping
    the decorated function drops its cache at once.
    """

    cache: Any
    backend: Any  # that wrapped it
    token: str | None = None  # of its cache, once it was pickled by value

    def __init__(
        self,
        function: Callable[..., Any],
        cache: Any,
        make_key: MakeKey,
        options: CachedOptions,
    ) -> None:
        self.function = function
        self.cache = cache
        self.options = options
        self._make_key = make_key

    def make_key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call in the cache."""
        return self._make_key(args, kwargs)

    def cache_for(self, args: tuple[Any, ...]) -> Any:
        """Return the cache of a call."""
        return self.cache

    def cache_info(self, *args: Any) -> CacheInfo:
        """Return the figures of the cache."""
        return self.cache.info()  # type: ignore[no-any-return]

    def cache_clear(self, *args: Any) -> None:
        """Forget all results and count anew."""
        self.cache.clear()

    def cache_discard(self, *args: Any, **kwargs: Any) -> bool:
        """Forget the result of one call; return whether there was one."""
        try:
            del self.cache_for(args)[self._key_of(args, kwargs)]
        except KeyError:
            return self._refuse_arguments_of_others(args, kwargs)
        return True

    def cache_contains(self, *args: Any, **kwargs: Any) -> bool:
        """Return whether the result of this call seems to be cached."""
        found = self._key_of(args, kwargs) in self.cache_for(args)
        return found or self._refuse_arguments_of_others(args, kwargs)

    def cache_parameters(self) -> dict[str, Any]:
        """Return the parameters that the function was decorated with."""
        return self.options.as_dict()

    def _key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        key = self.make_key(args, kwargs)
        refuse_unhashable(self.function, key)
        return key

    def _refuse_arguments_of_others(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Raise TypeError for arguments that no call can have; otherwise return False.

        Without it, a forgotten `self` would leave the result of a method in the cache, silently.
        """
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):  # some builtins have none
            return False
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            name = getattr(self.function, "__qualname__", repr(self.function))
            raise TypeError(
                f"{name}{signature} can't be called with these arguments: {error}"
            ) from None
        return False


def refuse_unhashable(function: Callable[..., Any], key: object) -> None:
    """Raise TypeError if the key of a call of `function` can't be hashed."""
    try:
        hash(key)
    except TypeError as error:
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(
            f"{error}: the key of a call of {name} has to be hashable. Give cached a key= that "
            "returns one for these arguments; key=vrange.keys.content takes what arrays, lists and "
            "dicts contain"
        ) from error
