"""The names that are not available without Linux: each exists, and raises when it is used."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any, NoReturn

from vrange.errors import VrangeError


def refuse(name: str) -> NoReturn:
    """Raise the error that every use of `name` raises."""
    raise VrangeError(
        f"vrange.{name} needs Linux, and this is {platform.system()}: see vrange.capabilities()"
    )


class _Missing:
    def __init__(self, *_: object, **__: object) -> None:
        refuse(type(self).__name__)


class Arena(_Missing):
    """Address space for volatile ranges: Linux only."""


class Range(_Missing):
    """A part of an arena: Linux only."""


class Purged(_Missing):
    """The loss that a pin reports: Linux only."""


class VolatileArray(_Missing):
    """An array that refills where it is touched: Linux only."""


class DeepStack(_Missing):
    """A stack for deep calls: Linux only."""


class StackInfo(_Missing):
    """The memory of the stacks of this process: Linux only."""


class StackUse(_Missing):
    """The memory of one stack: Linux only."""


class Stats(_Missing):
    """The figures of vrange: Linux only."""


class StackUnavailableError(VrangeError):
    """Raised on Linux only; defined here so that code can catch it."""


def deep_recursion(function: Callable[..., Any] | None = None, **_: object) -> Any:
    """Decorate as on Linux; a call of the decorated function raises VrangeError."""
    if function is None:
        return deep_recursion

    @functools.wraps(function)
    def call(*_: object, **__: object) -> NoReturn:
        refuse("deep_recursion")

    return call


def deep_call(*_: object, **__: object) -> NoReturn:
    """Raise VrangeError."""
    refuse("deep_call")


def deep_threads(*_: object, **__: object) -> NoReturn:
    """Raise VrangeError."""
    refuse("deep_threads")


def register_thread(*_: object, **__: object) -> NoReturn:
    """Raise VrangeError."""
    refuse("register_thread")


def memory_limit() -> int:
    """Return the machine's memory in bytes: no other limit is known here."""
    import psutil

    return int(psutil.virtual_memory().total)


def set_limit(*_: object, **__: object) -> None:
    """Do nothing: a cache here has a fixed size."""


def set_reserve(*_: object, **__: object) -> None:
    """Do nothing: no cache here offers anything."""


def stack_info(*_: object, **__: object) -> NoReturn:
    """Raise VrangeError."""
    refuse("stack_info")


def stats(*_: object, **__: object) -> NoReturn:
    """Raise VrangeError. A cache's own `info()` is available."""
    refuse("stats")


def trim_idle_stacks(*_: object, **__: object) -> int:
    """Return 0, because there is nothing to trim."""
    return 0


def trim_stack(*_: object, **__: object) -> int:
    """Return 0, because there is nothing to trim."""
    return 0
