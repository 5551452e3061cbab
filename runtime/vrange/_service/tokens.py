"""The tokens of tags, for all processes of a service: small values in the index."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

from vrange._service.listing import keys_of, peek
from vrange._service.values import SharedValues

__all__ = ["SharedTokens", "keys_but_tags"]

_MARK = "vrange: the token of a tag, 6f1c0a52e9d94b7d"
_TOKEN_BYTES = 8
_NEVER_NS = 1 << 62


class SharedTokens:
    """The current tokens of tags.

    A token that is gone, because the index was full, makes values with the tag invalid.

    Parameters
    ----------
    find_values : callable
        Returns the values of the service, or None if this process has a cache of its own.

    """

    def __init__(self, find_values: Callable[[], SharedValues | None]) -> None:
        self._find_values = find_values
        self._own: dict[str, str] = {}  # while this process has a cache of its own

    def of(self, tag: str) -> str:
        """Return the token of a tag. Make one if there is none."""
        token = self.current(tag)
        return self.renew(tag) if token is None else token

    def current(self, tag: str) -> str | None:
        """Return the token of a tag; None if it is gone."""
        values = self._find_values()
        if values is None:
            return self._own.get(tag)
        token = peek(values, values.know((_MARK, tag)), copies=False)
        return token if isinstance(token, str) else None

    def renew(self, tag: str) -> str:
        """Give a tag another token, and return it."""
        token = secrets.token_hex(_TOKEN_BYTES)
        values = self._find_values()
        if values is None:
            self._own[tag] = token
        else:
            values.store(values.know((_MARK, tag)), token, None, expires_ns=_NEVER_NS)
        return token


def keys_but_tags(values: SharedValues) -> Iterator[Any]:
    """Yield the keys of values, without those of tokens."""
    for key in keys_of(values):
        if not (type(key) is tuple and len(key) == 2 and key[0] == _MARK):
            yield key
