"""A function whose results are cached across the workers of a cluster."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from dask.tokenize import tokenize
from distributed.worker import get_worker

import vrange
from vrange.dask.peers import Call, Peers, peers_of

__all__ = ["cached"]

_MISSING = object()
_LINK = "across"  # an attribute that is pickled with the function: not a private name


def cached(function: Any = None, /, **options: Any) -> Any:
    """Cache a function's results in every worker, and let workers get them from each other.

    The function is `vrange.cached` in the process that calls it. In a worker of a Dask cluster with
    `vrange.dask.Plugin`, a result that this worker does not have comes from a worker that has it.
    If none has it, one worker computes it, and the others that want it meanwhile wait for it. So
    calls may be in any task: of `client.submit`, `delayed`, dask.array or dask.dataframe.

    Parameters
    ----------
    function : callable
        The function. Without it, `cached` returns a decorator. It is not a coroutine function.
    **options
        As for `vrange.cached`.

    Returns
    -------
    CachedFunction
        The function, as `vrange.cached` returns it. `cache_clear()` and `cache_discard()` are about
        the calling process; other workers keep what they have.

    Notes
    -----
    A value is volatile in each worker that has it: if the kernel takes it, or the worker ends, it
    comes from another worker or is computed again. Arguments that Dask can't name the same in every
    process (`dask.base.tokenize`) are computed in each worker. A worker that does not answer can't
    make a call fail or hang: the value is computed where it is wanted.

    Examples
    --------
    >>> import vrange.dask
    >>> @vrange.dask.cached
    ... def square(n: int) -> int:
    ...     return n * n
    >>> square(12)
    144

    """
    if function is None:
        return functools.partial(cached, **options)
    across = _Across(function)
    decorated = vrange.cached(**options)(across)
    setattr(decorated, _LINK, _Link(decorated, across))
    return decorated


class _Across:
    """What is called when this process does not have a result."""

    # Not in __dict__, which the decorated function gets a copy of.
    __slots__ = ("__dict__", "_function", "_name", "decorated")

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._name: str | None = None
        self.decorated: Callable[[], Any] = lambda: None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Across, (self._function,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        peers = _peers_of_this_task()
        decorated = self.decorated()
        call = None if peers is None or decorated is None else self._call(decorated, args, kwargs)
        if peers is None or call is None:
            return self._function(*args, **kwargs)

        def lookup(*args: Any, **kwargs: Any) -> tuple[bool, Any]:
            key = decorated._calls.make_key(args, kwargs)
            value = decorated.cache.get(key, _MISSING)
            return value is not _MISSING, value

        return peers.get(call, lookup, lambda: self._function(*args, **kwargs))

    def _call(self, decorated: Any, args: Any, kwargs: Any) -> Call | None:
        try:
            if self._name is None:
                self._name = tokenize(self._function, ensure_deterministic=True)
            key = tokenize(
                self._name, decorated._calls.make_key(args, kwargs), ensure_deterministic=True
            )
        except Exception:  # each process would name it differently
            return None
        return Call(self._name, key, (args, kwargs))


class _Link:
    """Tells `across` which decorated function calls it.

    It is an attribute of that function. So where the function arrives pickled with its code, as one
    of a notebook does in workers, the two know each other again.
    """

    def __init__(self, decorated: Any, across: _Across) -> None:
        self._parts = weakref.ref(decorated), across
        across.decorated = self._parts[0]

    def __reduce__(self) -> tuple[Any, ...]:
        decorated, across = self._parts
        return _Link, (decorated(), across)


def _peers_of_this_task() -> Peers | None:
    try:
        return peers_of(get_worker())
    except ValueError:  # not in a task
        return None
