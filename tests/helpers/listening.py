"""A listener that notes what it is called with."""

from __future__ import annotations

from typing import Any


class Heard(list[tuple[Any, str]]):
    """A listener."""

    def __call__(self, key: Any, cause: str) -> None:
        self.append((key, cause))

    def of(self, cause: str) -> list[Any]:
        """Return the keys that left for this reason."""
        return [key for key, why in self if why == cause]
