"""Pickling of decorated functions: by name, or with their code by picklers that pickle code.

cloudpickle (which joblib's loky, Dask, Ray and Spark use) and dill pickle functions of `__main__`
with their code, because a worker can't import them. They support plain functions only, so a
decorated function must return its parts to them. pickle itself needs the function's name instead.
pickle's interface does not say which pickler calls, so this module finds it on the stack.
"""

from __future__ import annotations

import sys
import uuid
import weakref
from collections import OrderedDict
from types import FrameType
from typing import Any, Protocol

from vrange._cache.calls import Calls
from vrange._cache.options import CachedOptions

_WITH_CODE = {"cloudpickle", "dill"}
_CACHES_MOST = 128  # of functions that arrived by value: many tasks bring the same function

_own: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_arrived: OrderedDict[str, Any] = OrderedDict()


class Backend(Protocol):
    """What is needed of a platform's backend (decorate.py) to make a decorated function anew."""

    def new_cache(self, **of_cache: Any) -> Any:
        """Return a new cache."""

    def blank(self, kind: type, cache: Any) -> Any:
        """Return a decorated function without a function."""

    def calls_of(self, function: Any, options: CachedOptions, cache: Any) -> Calls:
        """Return the calls of a function."""

    def wrap_calls(self, calls: Calls, into: Any = None) -> Any:
        """Fill a decorated function."""


def reduce_function(function: Any) -> str | tuple[Any, ...]:
    """Return a decorated function for a pickler: its name, or its parts."""
    pickler = _pickler_with_code(sys._getframe(1))
    if pickler is None or _is_known_by_name(function, pickler):
        return function.__qualname__  # type: ignore[no-any-return]
    calls: Calls = function._calls
    of_cache = None
    if calls.options.cache is None:
        of_cache = calls.options.of_cache()
        if calls.token is None:
            calls.token = uuid.uuid4().hex
        _own[calls.token] = calls.cache
    # In two steps, so that a function that refers to itself finds itself while it is unpickled.
    blank = calls.backend, type(function), calls.token, of_cache
    return _blank, blank, (calls.function, calls.options, _attributes(function)), None, None, _fill


def _blank(backend: Backend, kind: type, token: str | None, of_cache: Any) -> Any:
    cache = None if token is None else _cache_of(backend, token, of_cache)
    function = backend.blank(kind, cache)
    function._arriving = backend, token, cache
    return function


def _fill(function: Any, state: tuple[Any, Any, dict[str, Any]]) -> None:
    plain, options, attributes = state
    backend, token, cache = function.__dict__.pop("_arriving")
    calls = backend.calls_of(plain, options, cache)
    calls.token = token
    backend.wrap_calls(calls, function)
    function.__dict__.update(attributes)


def _cache_of(backend: Backend, token: str, of_cache: dict[str, Any]) -> Any:
    """Return the one cache that this process has for a function, however often it arrives."""
    cache = _own.get(token)
    if cache is None:
        cache = _own[token] = backend.new_cache(**of_cache)
    _arrived[token] = cache
    _arrived.move_to_end(token)
    while len(_arrived) > _CACHES_MOST:
        _arrived.popitem(last=False)
    return cache


def _pickler_with_code(frame: FrameType | None) -> Any:
    """Return the globals of the calling pickler's module, if that pickler pickles code."""
    while frame is not None:
        if frame.f_code.co_name == "dump":
            module = str(frame.f_globals.get("__name__"))
            if _WITH_CODE.intersection(module.split(".")):
                return frame.f_globals
        frame = frame.f_back
    return None


def _is_known_by_name(function: Any, pickler: dict[str, Any]) -> bool:
    """Return whether the process that reads the pickle can import the function."""
    module, name = function.__module__, getattr(function, "__qualname__", None)
    if module == "__main__" or name is None:
        return False
    listed = pickler.get("list_registry_pickle_by_value")
    by_value = listed() if callable(listed) else ()
    if any(module == one or module.startswith(f"{one}.") for one in by_value):
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is function


def _attributes(function: Any) -> dict[str, Any]:
    """Return the attributes that other code set on the decorated function."""
    of_plain = getattr(function.__wrapped__, "__dict__", {})
    return {
        name: value
        for name, value in vars(function).items()
        if not name.startswith("_")
        and name != "cache"
        and name not in of_plain
        and not isinstance(getattr(value, "__self__", None), Calls)
    }
