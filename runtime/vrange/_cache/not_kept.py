"""Warnings about values that a cache can't keep, or can decode only slowly."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

from vrange.errors import CostlyHitWarning, NotKeptWarning
from vrange.sizes import format_bytes

T = TypeVar("T")

_PACKAGE = str(Path(__file__).parent.parent)


class Source:
    """The source of a cache's values: warnings name it.

    Parameters
    ----------
    name : str
        The cache's name.

    """

    def __init__(self, name: str) -> None:
        self.name = f"cache {name!r}"
        self.homes: tuple[str, ...] = ()  # modules that are searched for singletons each time
        self._warned: set[type] = set()
        self._warned_of_cost = False

    def is_function(self, function: Any) -> None:
        """Note the function that returns the values."""
        module = getattr(function, "__module__", None)
        if isinstance(module, str):
            self.homes = (module,)
        self.name = f"{getattr(function, '__qualname__', None) or type(function).__qualname__}()"

    def code(self, value: Any, code: Callable[[], T]) -> T | None:
        """Return code(); None, after a warning, if the value can't be kept.

        Raises MemoryError, and RecursionError if the value is nested too deeply.
        """
        try:
            return code()
        except (MemoryError, RecursionError):
            raise
        except Exception as first:
            error = _error_again(code, first)
        kind = type(value)
        if kind not in self._warned:
            self._warned.add(kind)
            warn(
                f"{self.name}: a value of type {_name_of(kind)} is not cached, because it can't be "
                f"pickled ({type(error).__name__}: {error}). It is computed at each request"
            )
        return None

    def give_up(self, key: Hashable, error: Exception) -> None:
        """Warn that a value was pickled and can't be unpickled: once for each type of error."""
        if type(error) not in self._warned:
            self._warned.add(type(error))
            warn(
                f"{self.name}: a value that was pickled can't be unpickled ({error!r}), and is not "
                "cached. It is computed at each request"
            )

    def hit_is_costly(self, kind: type, seconds: float, weight: int, most: int) -> None:
        """Warn once that each hit decodes the value, because it is too heavy to be hot."""
        if not self._warned_of_cost:
            self._warned_of_cost = True
            warn(
                f"{self.name}: each hit on a value of type {_name_of(kind)} takes {seconds:.2g} s "
                f"to decode it, unless another caller holds it. Its objects take "
                f"{format_bytes(weight)}, and hot_bytes is {format_bytes(most)}: set hot_bytes "
                "higher, or return arrays, which need no decoding",
                CostlyHitWarning,
            )


def _error_again(code: Callable[[], object], first: Exception) -> Exception:
    """Code the value again. Raise the first error if a signal handler had raised it."""
    try:
        code()
    except (MemoryError, RecursionError):
        raise
    except Exception as second:
        return second
    raise first


def _name_of(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def warn(message: str, category: type[Warning] = NotKeptWarning) -> None:
    """Warn, with the place in the code that called vrange."""
    warnings.warn(message, category, stacklevel=_frames_of_ours())


def _frames_of_ours() -> int:
    """Return the stacklevel, as the caller of this function needs it, of the calling code."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
