"""The figures of a cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from vrange.sizes import format_bytes

_COLOURS = {
    "hot": "#1b7f5c",
    "resident": "#5cb894",
    "waited": "#a9d8c5",
    "peer": "#7aa6c2",
    "purged": "#d9822b",
    "missed": "#c9ccd1",
}


@dataclass(frozen=True, eq=False, repr=False)
class CacheInfo:
    """The figures of a cache since it was made or cleared, and its bytes now, in whole pages.

    It unpacks and compares as the four figures of functools.lru_cache: hits, misses, maxsize,
    currsize.

    Attributes
    ----------
    name : str
        The label of the cache's metrics.
    hits : int
        The requests that were answered without computing: `hot_hits`, `resident_hits`, `waited` and
        `peer_hits`.
    hot_hits : int
        The hits on values that the cache holds strongly.
    resident_hits : int
        The hits on volatile values that were complete.
    waited : int
        The requests that another caller's computation answered.
    peer_hits : int
        The hits on values that this process read from another one: in the child of a fork, from
        the process that had cached them before.
    misses : int
        The requests for values that were never cached, had expired, or were evicted by the cache
        itself.
    purged : int
        The requests for values that were lost while memory was short.
    entries : int
        The keys with a value, including values that the kernel took unnoticed.
    pinned_bytes, idle_bytes, offered_bytes, purged_bytes : int
        The bytes by state.
    hot_bytes : int
        The bytes that the cache holds strongly, for hits at the speed of a dict.
    object_bytes : int
        The part of `hot_bytes` that lies in ordinary objects, outside ranges. The rest is part of
        `pinned_bytes`. The kernel can take neither.
    max_bytes, max_entries : int or None
        The bounds.
    evicted_bytes, purged_total_bytes : int
        The bytes that the cache evicted, and those that the kernel took.
    regenerated : int
        The computations.
    regenerate_seconds : float
        The time that they took.
    refused : int
        The values that were not stored, because there was no room.
    index_bytes : int
        The memory of keys and entries, roughly.
    below_hits, below_misses : int
        The lookups in the lower tier, `below=`, that found a value, and those that did not.
    below_errors : int
        The lookups and writes there that failed, and the damaged values.
    below_written, below_dropped : int
        The values that were written there, and those that were not: they were gone before their
        turn, or can't be pickled, or too many waited.
    below_read_bytes, below_written_bytes : int
        The bytes that were read and written there.

    Examples
    --------
    >>> import vrange
    >>> @vrange.cached(maxsize=128)
    ... def square(n):
    ...     return n * n
    >>> square(3), square(3)
    (9, 9)
    >>> hits, misses, maxsize, currsize = square.cache_info()
    >>> hits, misses, maxsize, currsize
    (1, 1, 128, 1)

    """

    name: str
    hits: int
    hot_hits: int
    resident_hits: int
    misses: int
    purged: int
    entries: int
    pinned_bytes: int
    idle_bytes: int
    offered_bytes: int
    purged_bytes: int
    hot_bytes: int
    max_bytes: int | None
    evicted_bytes: int
    purged_total_bytes: int
    regenerated: int
    regenerate_seconds: float
    refused: int = 0
    max_entries: int | None = None
    index_bytes: int = 0
    waited: int = 0
    object_bytes: int = 0
    peer_hits: int = 0
    below_hits: int = 0
    below_misses: int = 0
    below_errors: int = 0
    below_written: int = 0
    below_dropped: int = 0
    below_read_bytes: int = 0
    below_written_bytes: int = 0

    # ---- as of functools.lru_cache -------------------------------------------------------------

    @property
    def maxsize(self) -> int | None:
        """The bound on entries, as functools.lru_cache calls it."""
        return self.max_entries

    @property
    def currsize(self) -> int:
        """The number of entries, as functools.lru_cache calls it."""
        return self.entries

    def _four(self) -> tuple[int, int, int | None, int]:
        return self.hits, self.misses, self.maxsize, self.currsize

    def __iter__(self) -> Iterator[int | None]:
        return iter(self._four())

    def __len__(self) -> int:
        return 4

    def __getitem__(self, place: Any) -> Any:
        return self._four()[place]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, CacheInfo):
            return asdict(self) == asdict(other)
        if isinstance(other, tuple):
            return self._four() == other
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._four())

    def _asdict(self) -> dict[str, Any]:
        """Return all figures by name, as a named tuple does."""
        return asdict(self) | {"maxsize": self.maxsize, "currsize": self.currsize}

    # ---- to be looked at -----------------------------------------------------------------------

    def _requests(self) -> dict[str, int]:
        return {
            "hot": self.hot_hits,
            "resident": self.resident_hits,
            "waited": self.waited,
            "peer": self.peer_hits,
            "purged": self.purged,
            "missed": self.misses,
        }

    @property
    def _hit_ratio(self) -> float | None:
        requests = sum(self._requests().values())
        return self.hits / requests if requests else None

    def __repr__(self) -> str:
        return (
            f"CacheInfo(name={self.name!r}, hits={self.hits}, misses={self.misses}, "
            f"purged={self.purged}, maxsize={self.maxsize}, currsize={self.currsize}, …)"
        )

    def _repr_html_(self) -> str:
        """Return HTML for notebooks: a bar of the requests by outcome, and a line of figures."""
        ratio = self._hit_ratio
        told = "no requests yet" if ratio is None else f"{ratio:.1%} hits"
        parts = [
            f'<span title="{outcome}: {count:,}" style="flex:{count};'
            f'background:{_COLOURS[outcome]}"></span>'
            for outcome, count in self._requests().items()
            if count
        ]
        states = ", ".join(
            f"{format_bytes(getattr(self, f'{state}_bytes'))} {state}"
            for state in ("pinned", "idle", "offered")
        )
        return (
            f"<div><b>{escape(self.name)}</b>: {told}, {self.entries:,} entries, {states}"
            '<div style="display:flex;height:.8em;max-width:30em;background:#eee">'
            f"{''.join(parts)}</div></div>"
        )
