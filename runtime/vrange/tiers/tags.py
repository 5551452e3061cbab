"""Tags: names that values carry, so that all values with one are removed at once.

Each tag has a token. A value is stored with the tokens that were current when its computation
began, and is valid while they still are. `discard_tag` replaces one token: it looks at no value.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any, Protocol

__all__ = ["LocalTokens", "Tags", "names_of_tags"]

# The first item of what a cache stores in place of a value with tags.
_TAGGED = "vrange: a value with tags, 6f1c0a52e9d94b7d"
_DISCARDED_MOST = 100_000
_TOKEN_BYTES = 8
_FOREVER_SECONDS = 3e9


class Tokens(Protocol):
    """The current tokens of tags."""

    def of(self, tag: str) -> object:
        """Return the token of a tag. Make one if there is none."""

    def current(self, tag: str) -> object:
        """Return the token of a tag; None if it is gone."""

    def renew(self, tag: str) -> None:
        """Give a tag another token."""


class LocalTokens:
    """The tokens of tags in one process."""

    def __init__(self) -> None:
        self._renewed: dict[str, str] = {}
        self._others = self._new()  # the token of tags that were never discarded

    @staticmethod
    def _new() -> str:
        return secrets.token_hex(_TOKEN_BYTES)

    def of(self, tag: str) -> str:
        """Return the token of a tag."""
        return self._renewed.get(tag, self._others)

    current = of

    def renew(self, tag: str) -> None:
        """Give a tag another token."""
        if len(self._renewed) >= _DISCARDED_MOST:
            # Tags that were discarded can't be forgotten one by one: their values would be valid.
            self._others, self._renewed = self._new(), {}
        self._renewed[tag] = self._new()


class Tags:
    """The tags of a cache's values.

    Parameters
    ----------
    tokens : Tokens
        The current tokens.

    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def note(self, tags: tuple[str, ...]) -> tuple[Any, ...]:
        """Return the tokens of tags, as they are stored with a value."""
        return tuple((tag, self._tokens.of(tag)) for tag in tags)

    def discard(self, tag: str) -> None:
        """Make all values with a tag invalid."""
        self._tokens.renew(tag)

    @staticmethod
    def stored(value: Any, noted: tuple[Any, ...]) -> Any:
        """Return what is stored for a value with the tokens of `note`."""
        return (_TAGGED, noted, value) if noted else value

    @staticmethod
    def parts(stored: Any) -> tuple[tuple[Any, ...], Any]:
        """Return the tokens and the value of what was stored."""
        if type(stored) is tuple and len(stored) == 3 and stored[0] == _TAGGED:
            return stored[1], stored[2]
        return (), stored

    def are_current(self, noted: tuple[Any, ...]) -> bool:
        """Return whether no tag was discarded since `note`."""
        current = self._tokens.current
        return all(current(tag) == token for tag, token in noted if tag is not None)

    @staticmethod
    def with_age(noted: tuple[Any, ...], seconds: float) -> tuple[Any, ...]:
        """Return the tokens of a value that is stale in so many seconds."""
        return *noted, (None, time.monotonic_ns() + int(min(seconds, _FOREVER_SECONDS) * 1e9))

    @staticmethod
    def is_stale(noted: tuple[Any, ...]) -> bool:
        """Return whether these are the tokens of a value that is stale now."""
        return any(tag is None and until <= time.monotonic_ns() for tag, until in noted)


def names_of_tags(tags: Any) -> tuple[str, ...]:
    """Return the names of tags: one, or several. Raise TypeError for anything else."""
    names = (tags,) if isinstance(tags, str) else tags
    if not isinstance(names, Iterable) or isinstance(names, bytes):
        raise TypeError(f"tags must be a str or several, not {tags!r}")
    names = tuple(dict.fromkeys(names))
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"tags must be a str or several, not {name!r}")
    return names
