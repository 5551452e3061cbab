"""The arguments of `watch`, checked, and as the native side takes them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vrange._core import ffi
from vrange.pressure.actions import ACTIONS, Action
from vrange.pressure.callbacks import OnLevel

if TYPE_CHECKING:
    import asyncio

__all__ = ["checked_actions", "checked_functions", "native_settings"]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_shares(elevated: float, critical: float, hysteresis: float, stalled: float) -> None:
    shares = {"elevated": elevated, "critical": critical, "stalled": stalled}
    for name, value in shares.items():
        if not _is_number(value) or not 0 < value <= 1:
            raise ValueError(f"{name} must be more than 0 and at most 1, not {value!r}")
    if elevated >= critical:
        raise ValueError(f"elevated ({elevated:g}) must be less than critical ({critical:g})")
    if not _is_number(hysteresis) or not 0 <= hysteresis < elevated:
        raise ValueError(f"hysteresis must be 0 or more and below elevated, not {hysteresis!r}")


def native_settings(
    elevated: float,
    critical: float,
    hysteresis: float,
    stalled: float,
    interval: float,
    min_interval: float,
) -> Any:
    """Return a `vrange_pressure_settings`; ValueError if a figure is out of range."""
    _check_shares(elevated, critical, hysteresis, stalled)
    seconds = {"interval": (interval, 0.001, 60.0), "min_interval": (min_interval, 0.0, 86400.0)}
    for name, (value, least, most) in seconds.items():
        if not _is_number(value) or not least <= value <= most:
            raise ValueError(f"{name} must be {least:g} to {most:g} seconds, not {value!r}")
    settings = ffi.new("vrange_pressure_settings *")
    settings.interval_ns = int(interval * 1e9)
    settings.again_ns = int(min_interval * 1e9)
    settings.elevated, settings.critical = elevated, critical
    settings.hysteresis, settings.stalled = hysteresis, stalled
    return settings


def checked_actions(actions: Iterable[Action]) -> tuple[Action, ...]:
    """Return the actions in the order in which they run; ValueError if one is unknown."""
    given = [actions] if isinstance(actions, str) else list(actions)
    unknown = [action for action in given if action not in ACTIONS]
    if unknown:
        raise ValueError(f"actions are of {', '.join(map(repr, ACTIONS))}, not {unknown[0]!r}")
    return tuple(action for action in ACTIONS if action in given)


def _check_loop(loop: object) -> None:
    import asyncio  # here: it takes megabytes, and most programs that are watched have no loop

    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"loop must be an event loop, not {loop!r}")
    if loop.is_closed():
        raise ValueError(f"loop is closed: {loop!r}")


def checked_functions(
    on_level: OnLevel | Iterable[OnLevel] | None, loop: asyncio.AbstractEventLoop | None
) -> list[OnLevel]:
    """Return the callbacks as a list; TypeError or ValueError unless the loop can run them."""
    if loop is not None:
        _check_loop(loop)
    if on_level is None:
        return []
    if not callable(on_level) and not isinstance(on_level, Iterable):
        raise TypeError(f"on_level must be callable, or several callables, not {on_level!r}")
    functions: list[Any] = [on_level] if callable(on_level) else list(on_level)
    for function in functions:
        if not callable(function):
            raise TypeError(f"on_level must be callable, not {function!r}")
        if loop is None and inspect.iscoroutinefunction(function):
            raise TypeError(f"{function!r} is a coroutine function: pass the loop= it is to run on")
    return functions
