"""The state of the native watcher."""

from __future__ import annotations

from typing import Any, Literal

from vrange._core import ffi, lib
from vrange._counters.names import PRESSURE_LEVELS

__all__ = ["Level", "level_of", "read_watcher"]

Level = Literal["normal", "elevated", "critical"]


def read_watcher() -> Any:
    """Return the current `vrange_pressure_info`."""
    info = ffi.new("vrange_pressure_info *")
    lib.vrange_pressure_read(info)
    return info


def level_of(info: Any) -> Level | None:
    """Return its level, or None if nothing watches."""
    return PRESSURE_LEVELS[info.level] or None
