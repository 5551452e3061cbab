"""The calls of a decorated function: their keys, their cache, and its figures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from vrange._cache.options import CachedOptions

if TYPE_CHECKING:
    from vrange._cache.info import CacheInfo


MakeKey = Callable[[tuple[Any, ...], dict[str, Any]], Hashable]


class Calls:
    """The calls of `function`, cached in `cache` under the keys of `make_key(args, kwargs)`.

    It has no reference to the decorated function, because that would be a cycle: dropping the
    decorated function frees its cache at once.
    """

    cache: Any
    backend: Any  # the Backend that wrapped the function
    token: str | None = None  # names its cache, once the function was pickled by value

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

    def tags_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the tags of a call's result, as a named argument; nothing if it has none."""
        tags = self.options.tags
        if callable(tags):
            tags = tags(*args, **kwargs)
        return {"tags": tags} if tags else {}

    def cache_for(self, args: tuple[Any, ...]) -> Any:
        """Return the cache of a call."""
        return self.cache

    def cache_info(self, *args: Any) -> CacheInfo:
        """Return the figures of the cache."""
        return self.cache.info()  # type: ignore[no-any-return]

    def cache_clear(self, *args: Any) -> None:
        """Remove all results and reset the figures."""
        self.cache.clear()

    def cache_discard(self, *args: Any, **kwargs: Any) -> bool:
        """Remove the result of one call; return whether there was one."""
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

        Without this check, a forgotten `self` would silently leave a method's result in the cache.
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
            f"{error}: the key of a call of {name} must be hashable. Give cached a key= that "
            "returns a hashable key for these arguments; key=vrange.keys.content makes keys from "
            "the contents of arrays, lists and dicts"
        ) from error
