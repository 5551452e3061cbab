"""Which workers have a value, and which one is computing it: one worker's share of that knowledge.

Each key has a home among the live workers, which every worker finds by the same hash (rendezvous
hashing: if a worker comes or goes, only its own keys move). The home knows who has the value. It
sends no values, and computes none, so a question to it never waits for a thread of the worker.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

__all__ = ["Answer", "Directory", "home_of"]

_KEYS_MOST = 100_000
_HOLDERS_MOST = 4


def home_of(key: str, workers: Collection[str]) -> str:
    """Return the worker that knows about a key. All workers agree on it.

    Examples
    --------
    >>> home_of("k", ["tcp://a:1", "tcp://b:1"]) == home_of("k", ["tcp://b:1", "tcp://a:1"])
    True

    """
    return max(workers, key=lambda one: hashlib.blake2b(f"{one}\0{key}".encode()).digest())


@dataclass(frozen=True)
class Answer:
    """What a worker does that asked: fetch the value, compute it, or ask again.

    Attributes
    ----------
    holder : str or None
        The worker that has the value.
    compute : bool
        Whether the asking worker computes it, and tells the home when that is over.

    """

    holder: str | None = None
    compute: bool = False


@dataclass
class _Known:
    holders: list[str] = field(default_factory=list)  # the latest first
    leader: str | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Directory:
    """The keys whose home is this worker. All calls are from its event loop."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def ask(
        self, key: str, asker: str, *, workers: Collection[str], patience: float
    ) -> Answer:
        """Return who has the value; if nobody has, wait while another worker computes it.

        Parameters
        ----------
        key : str
            The key.
        asker : str
            The worker that asks.
        workers : collection of str
            The live workers.
        patience : float
            Seconds after which to answer "ask again", so that a dead home is noticed.

        """
        known = self._known_of(key)
        known.holders = [one for one in known.holders if one in workers and one != asker]
        if known.holders:
            return Answer(holder=known.holders[0])
        if known.leader is None or known.leader == asker or known.leader not in workers:
            known.leader = asker
            known.over.clear()
            return Answer(compute=True)
        try:
            await asyncio.wait_for(known.over.wait(), patience)
        except TimeoutError:
            return Answer()
        return Answer(holder=known.holders[0] if known.holders else None)

    def computed(self, key: str, worker: str, *, has_value: bool) -> None:
        """Note that a worker's computation is over, and whether it has the value now."""
        known = self._known_of(key)
        if has_value:
            known.holders = [worker, *(one for one in known.holders if one != worker)]
            del known.holders[_HOLDERS_MOST:]
        if known.leader == worker:
            known.leader = None
            known.over.set()

    def lost(self, key: str, worker: str) -> None:
        """Note that a worker has the value no longer."""
        known = self._known.get(key)
        if known is not None and worker in known.holders:
            known.holders.remove(worker)

    def _known_of(self, key: str) -> _Known:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known()
            if len(self._known) > _KEYS_MOST:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return known
