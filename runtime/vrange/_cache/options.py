"""What caches and @cached take, checked alike wherever they run."""

from __future__ import annotations

from typing import Any


def check_ttl(ttl: object) -> None:
    """Raises ValueError for what is neither None nor a positive number of seconds."""
    is_number = isinstance(ttl, int | float) and not isinstance(ttl, bool)
    if ttl is not None and not (is_number and ttl > 0):  # type: ignore[operator]
        raise ValueError(f"ttl must be a positive number of seconds or None, not {ttl!r}")


def check_max_entries(max_entries: object) -> None:
    """Raises TypeError or ValueError for what is neither None nor a positive int."""
    if max_entries is None:
        return
    if not isinstance(max_entries, int) or isinstance(max_entries, bool):
        raise TypeError(f"max_entries must be an int or None, not {max_entries!r}")
    if max_entries < 1:
        raise ValueError(f"max_entries must be at least 1, but is {max_entries}")


def check_decorated(function: object, key: object) -> None:
    """Raises TypeError for a function, or a key function, that can't be called."""
    if not callable(function):
        raise TypeError(f"cached decorates a callable, not {function!r}")
    if key is not None and not callable(key):
        raise TypeError(f"key must be callable or None, not {key!r}")


def name_of(function: Any) -> str:
    """What a decorated function's cache is called: module and name, cut to 63 bytes."""
    module = getattr(function, "__module__", "") or ""
    qualname = getattr(function, "__qualname__", type(function).__qualname__)
    # The end tells more than the beginning.
    return f"{module}.{qualname}".encode()[-63:].decode(errors="ignore")
