"""What can't be had without Linux: each name is there, and says so when it is used."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any, NoReturn

from vrange.errors import VrangeError


def refuse(name: str) -> NoReturn:
    """Raises what every use of `name` raises."""
    raise VrangeError(
        f"vrange.{name} is made of what Linux has, and this is {platform.system()}: "
        "see vrange.capabilities()"
    )


class _Missing:
    def __init__(self, *_: object, **__: object) -> None:
        refuse(type(self).__name__)


class Arena(_Missing):
    """Address space for volatile ranges: Linux only."""


class Range(_Missing):
    """A part of an arena: Linux only."""


class Purged(_Missing):
    """What a pin found lost: Linux only."""


class VolatileArray(_Missing):
    """An array that grows back where it is touched: Linux only."""


class DeepStack(_Missing):
    """A stack for deep calls: Linux only."""


class StackInfo(_Missing):
    """What the stacks of this process hold: Linux only."""


class StackUse(_Missing):
    """What one stack holds: Linux only."""


class Stats(_Missing):
    """What vrange counts: Linux only."""


class StackUnavailableError(VrangeError):
    """Raised nowhere but on Linux, and there to be caught."""


def deep_recursion(function: Callable[..., Any] | None = None, **_: object) -> Any:
    """Decorates as on Linux; calling what it decorated raises VrangeError."""
    if function is None:
        return deep_recursion

    @functools.wraps(function)
    def call(*_: object, **__: object) -> NoReturn:
        refuse("deep_recursion")

    return call


def deep_call(*_: object, **__: object) -> NoReturn:
    """Raises VrangeError."""
    refuse("deep_call")


def register_thread(*_: object, **__: object) -> NoReturn:
    """Raises VrangeError."""
    refuse("register_thread")


def set_reserve(*_: object, **__: object) -> None:
    """Does nothing: no cache here offers anything."""


def stack_info(*_: object, **__: object) -> NoReturn:
    """Raises VrangeError."""
    refuse("stack_info")


def stats(*_: object, **__: object) -> NoReturn:
    """Raises VrangeError; a cache's own `info()` is there."""
    refuse("stats")


def trim_idle_stacks(*_: object, **__: object) -> int:
    """Nothing is to be trimmed: 0."""
    return 0


def trim_stack(*_: object, **__: object) -> int:
    """Nothing is to be trimmed: 0."""
    return 0
