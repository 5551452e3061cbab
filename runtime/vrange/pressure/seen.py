"""What the native watcher sees."""

from __future__ import annotations

from typing import Any, Literal

from vrange._core import ffi, lib
from vrange.segment import PRESSURE_LEVELS

__all__ = ["Level", "level_of", "read_watcher"]

Level = Literal["normal", "elevated", "critical"]


def read_watcher() -> Any:
    """A `vrange_pressure_info`, as of now."""
    info = ffi.new("vrange_pressure_info *")
    lib.vrange_pressure_read(info)
    return info


def level_of(info: Any) -> Level | None:
    """The level it tells; None where nothing watches."""
    return PRESSURE_LEVELS[info.level] or None  # type: ignore[return-value]
