"""The types that `@cached` returns: a decorated function, and a bound one for a method.

On Linux the decorated function is of a native type with the same interface, unless it is a
coroutine function (native/python/cache/call.c).
"""

from __future__ import annotations

import functools
import inspect
from abc import ABCMeta
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from vrange._cache.by_value import reduce_function
from vrange._cache.calls import Calls
from vrange._cache.info import CacheInfo
from vrange._cache.parameters import is_coroutine_function

if TYPE_CHECKING:
    from vrange._cache.cache import VolatileCache

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class NamedArguments:
    """Separates positional from named arguments in a key. Its name stands for it."""


async def _coroutine() -> None:
    """Lend its code object to coroutine functions without one, such as partial functions."""


class CachedFunction(Generic[P, R_co], metaclass=ABCMeta):
    """A function whose results are cached. `vrange.cached` returns it.

    Call it as you call the function. Type checkers know its parameters and its result.

    Attributes
    ----------
    cache : VolatileCache
        The cache of its results.

    Examples
    --------
    >>> import vrange
    >>> @vrange.cached
    ... def square(n: int) -> int:
    ...     return n * n
    >>> square(12), square.cache_contains(12)
    (144, True)
    >>> same: vrange.CachedFunction[[int], int] = square

    """

    cache: VolatileCache[Any, Any]
    __wrapped__: Callable[P, R_co]
    __name__: str
    __qualname__: str

    def __init__(self, calls: Calls, answer: Callable[P, R_co]) -> None:
        function = calls.function
        functools.update_wrapper(self, function)
        self.cache = calls.cache
        self._calls = calls
        self._answer = answer
        if is_coroutine_function(function):
            # inspect and asyncio recognise a coroutine function by these attributes.
            self.__code__ = getattr(function, "__code__", _coroutine.__code__)
            self.__defaults__ = self.__kwdefaults__ = None
            self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the cached result for these arguments, or call the function."""
        return self._answer(*args, **kwargs)

    def cache_info(self) -> CacheInfo:
        """Return the figures of the cache, a `CacheInfo`."""
        return self._calls.cache_info()

    def cache_clear(self) -> None:
        """Remove all results and reset the figures."""
        self._calls.cache_clear()

    def cache_discard(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result of one call.

        A call with these arguments that begins afterwards is computed again.

        Parameters
        ----------
        *args, **kwargs
            The arguments of the call.

        Returns
        -------
        bool
            Whether there was a result.

        Raises
        ------
        TypeError
            If the function can't be called with these arguments.

        """
        return self._calls.cache_discard(*args, **kwargs)

    def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether the result of one call seems to be cached.

        The kernel may take it before the next call.

        Parameters
        ----------
        *args, **kwargs
            The arguments of the call.

        Returns
        -------
        bool
            Whether there seems to be a result.

        Raises
        ------
        TypeError
            If the function can't be called with these arguments.

        """
        return self._calls.cache_contains(*args, **kwargs)

    def cache_parameters(self) -> dict[str, Any]:
        """Return the parameters that the function was decorated with, as a new dict."""
        return self._calls.cache_parameters()

    # A type checker can't tell methods from static methods here. So it gets a type that accepts
    # the arguments with and without the first.
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], R_co],
        instance: object,
        owner: type[Any] | None = None,
        /,
    ) -> CachedMethod[P, Q, R_co]: ...
    @overload
    def __get__(
        self, instance: object, owner: type[Any] | None = None, /
    ) -> CachedFunction[P, R_co]: ...
    def __get__(self, instance: object, owner: type[Any] | None = None, /) -> Any:
        return self if instance is None else CachedMethod(self, instance)

    def __reduce__(self) -> str | tuple[Any, ...]:
        return reduce_function(self)

    def __copy__(self) -> CachedFunction[P, R_co]:
        return self

    def __deepcopy__(self, memo: object) -> CachedFunction[P, R_co]:
        return self

    def __repr__(self) -> str:
        return f"<cached {self.__wrapped__!r} in {self.cache!r}>"

    def _repr_html_(self) -> str | None:
        """Return HTML for notebooks, as of the cache."""
        return self.cache._repr_html_()


class CachedFunctionOfObjects(CachedFunction[P, R_co]):
    """A method whose results are in the caches of its objects."""

    def _repr_html_(self) -> None:
        """Return nothing: there are several caches."""

    def cache_info(self, *args: Any) -> CacheInfo:
        """Return the figures of the cache of an object."""
        return self._calls.cache_info(*args)

    def cache_clear(self, *args: Any) -> None:
        """Remove all results for an object."""
        self._calls.cache_clear(*args)

    if not TYPE_CHECKING:  # for type checkers it is like any other method

        def __get__(self, instance, owner=None):
            return self if instance is None else CachedMethodOfObject(self, instance)


if TYPE_CHECKING:

    class CachedMethod(Generic[P, Q, R_co]):
        """With the first argument, P, and without it, Q."""

        cache: VolatileCache[Any, Any]
        __name__: str
        __qualname__: str

        def __init__(self, function: Callable[P, R_co], instance: object) -> None: ...
        @property
        def __func__(self) -> CachedFunction[P, R_co]: ...
        @property
        def __self__(self) -> Any: ...
        @property
        def __wrapped__(self) -> Callable[P, R_co]: ...
        @overload
        def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R_co: ...
        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
        @overload
        def cache_discard(self, *args: Q.args, **kwargs: Q.kwargs) -> bool: ...
        @overload
        def cache_discard(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
        def cache_discard(self, *args: Any, **kwargs: Any) -> bool: ...
        @overload
        def cache_contains(self, *args: Q.args, **kwargs: Q.kwargs) -> bool: ...
        @overload
        def cache_contains(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
        def cache_contains(self, *args: Any, **kwargs: Any) -> bool: ...
        def cache_info(self) -> CacheInfo: ...
        def cache_clear(self) -> None: ...
        def cache_parameters(self) -> dict[str, Any]: ...

else:

    class CachedMethod(functools.partial):
        """A cached function with its first argument: a method of an object, or of a class.

        It has the attributes of the function. `cache_discard` and `cache_contains` take the
        arguments that the method is called with.
        """

        # A partial is called as fast as a bound method, and inspect and asyncio look through it.

        __doc__ = property(lambda self: self.func.__doc__)
        __func__ = property(lambda self: self.func)
        __self__ = property(lambda self: self.args[0])
        __signature__ = property(
            lambda self: inspect.signature(functools.partial(self.func, *self.args))
        )

        def __getattr__(self, name):
            return getattr(self.func, name)

        def cache_discard(self, *args, **kwargs):
            return self.func.cache_discard(*self.args, *args, **kwargs)

        def cache_contains(self, *args, **kwargs):
            return self.func.cache_contains(*self.args, *args, **kwargs)

        def __get__(self, instance, owner=None):
            return self

        def __eq__(self, other):
            if type(other) is not type(self):
                return NotImplemented
            return self.func is other.func and self.__self__ is other.__self__

        def __hash__(self):
            return hash((id(self.func), id(self.__self__)))

        def __reduce__(self):
            return getattr, (self.__self__, self.func.__name__)

        def __repr__(self):
            return f"<bound {self.func!r} of {self.__self__!r}>"

    class CachedMethodOfObject(CachedMethod):
        """A cached method whose results are in the cache of its object."""

        cache = property(lambda self: self.func._calls.cache_for(self.args))

        def cache_info(self):
            return self.func.cache_info(*self.args)

        def cache_clear(self):
            self.func.cache_clear(*self.args)


class CachedClassMethod(Generic[S, P, R_co]):
    """A cached class method: `@cached` stands above `@classmethod`."""

    def __init__(self, function: Any) -> None:
        self.__func__ = function
        self.__wrapped__ = function.__wrapped__

    def __get__(self, instance: object, owner: type[S] | None = None, /) -> CachedFunction[P, R_co]:
        """Return the method of the class."""
        method: Any = CachedMethod(self.__func__, type(instance) if owner is None else owner)
        return method  # type: ignore[no-any-return]


class CachedStaticMethod(Generic[P, R_co]):
    """A cached static method: `@cached` stands above `@staticmethod`."""

    def __init__(self, function: Any) -> None:
        self.__func__: CachedFunction[P, R_co] = function
        self.__wrapped__ = function.__wrapped__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function, as code in the class's body does."""
        return self.__func__(*args, **kwargs)

    def __get__(
        self, instance: object, owner: type[Any] | None = None, /
    ) -> CachedFunction[P, R_co]:
        """Return the function."""
        return self.__func__
