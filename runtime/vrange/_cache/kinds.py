"""Classes of caches that are made in rooms above this one, when a program asks for the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["kind_with", "load_shared_kind_by", "load_tiered_kind_by", "shared_kind"]

_load_shared_kind: Callable[[], type[Any]]
_load_tiered_kind: Callable[[type[Any], type[Any]], type[Any]]


def load_shared_kind_by(load: Callable[[], type[Any]]) -> None:
    """Set the function that returns the class of shared caches."""
    global _load_shared_kind
    _load_shared_kind = load


def load_tiered_kind_by(load: Callable[[type[Any], type[Any]], type[Any]]) -> None:
    """Set the function that returns the class of caches with a lower tier."""
    global _load_tiered_kind
    _load_tiered_kind = load


def shared_kind() -> type[Any]:
    """Return the class of shared caches."""
    return _load_shared_kind()


def kind_with(kind: type[Any], base: type[Any], below: object, tags: object) -> type[Any]:
    """Return the class of caches like `base`, with what is asked for."""
    return base if below is None and tags is False else _load_tiered_kind(kind, base)
