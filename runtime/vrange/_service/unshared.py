"""The keys whose values this process keeps alone, because others could not read them.

There is no record of them in the index, so only this process can list them. A value that another
process removed or replaced is noticed when it is looked up, or when the list has doubled.
"""

from __future__ import annotations

from vrange._service.known import Known

__all__ = ["UnsharedKeys"]

_LENGTH_LEAST = 64


class UnsharedKeys:
    """The keys, by their form."""

    def __init__(self) -> None:
        self._known_of: dict[bytes, Known] = {}
        self._long = _LENGTH_LEAST

    @property
    def is_long(self) -> bool:
        """Whether there are twice as many keys as at the last `all`."""
        return len(self._known_of) > self._long

    def get(self, form: bytes) -> Known | None:
        """Return what is known of the key with this form; None if it is not in the list."""
        return self._known_of.get(form)

    def add(self, known: Known) -> None:
        """Add a key."""
        self._known_of[known.form] = known

    def remove(self, known: Known) -> bool:
        """Remove a key. Return whether this call did."""
        return self._known_of.pop(known.form, None) is known

    def all(self) -> list[Known]:
        """Return all keys, to be looked at: those whose values are gone are to be removed."""
        everything = list(self._known_of.values())
        self._long = max(_LENGTH_LEAST, 2 * len(everything))
        return everything

    def clear(self) -> None:
        """Remove all keys."""
        self._known_of.clear()
