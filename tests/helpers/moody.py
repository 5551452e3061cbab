"""Keys that can't always be compared."""

from __future__ import annotations


class Moody:
    """Its like has the same hash, so it is compared with them; which raises while `fails`."""

    fails = False

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        if Moody.fails:
            raise RuntimeError("not today")
        return self is other
