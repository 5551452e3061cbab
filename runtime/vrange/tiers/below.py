"""The lower tier of one cache: what is read there, what is written, and what is not valid any more.

An invalidation reaches the tier before its call returns. It writes a new token: of the cache
(`clear`), of a tag, or of a key. A record is read only if its tokens are the current ones. So an
old value does not come back after a crash, nor if a slower process writes it later.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from vrange._cache.not_kept import warn
from vrange._cache.signal_errors import is_of_signal
from vrange.tiers.directory import TOKENS
from vrange.tiers.figures import Figures
from vrange.tiers.record import Record, TornError, pack, unpack
from vrange.tiers.stores import Store

__all__ = ["ABSENT", "Below", "Found", "Ticket"]

ABSENT: Any = object()
_FAILED: Any = object()
_DIGEST_BYTES = 16
_TOKEN_BYTES = 12
_TOKEN_SECONDS = 7 * 86400.0  # of a removed key: no computation that began before it lasts longer
_OWED_MOST = 4096
_STRIPES = 1024
_PAUSE_LEAST, _PAUSE_MOST = 1.0, 60.0


@dataclass(eq=False)
class Ticket:
    """What was current when a lookup or a computation began. Without tokens nothing is written."""

    digest: str
    form: bytes
    epoch: int
    changes: int
    generation: bytes | None = None
    removed: bytes = b""
    tags: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A value from the tier."""

    value: Any
    seconds_left: float | None
    noted: Any  # what `note` returned for its tags
    nbytes: int


class Below:
    """The lower tier of one cache.

    Parameters
    ----------
    store : Store
        Where the bytes are.
    name : str
        The name by which a later process finds them.
    room_for : callable
        Returns an object that reserves so many bytes while it lives. Raises MemoryError.

    """

    def __init__(self, store: Store, name: str, room_for: Callable[[int], object]) -> None:
        self.figures = Figures(name)
        self._store, self._name, self._room_for = store, name, room_for
        self._folder = f"vrange/{urllib.parse.quote(name, safe='')}"
        self._changes = [0] * _STRIPES  # how many keys of each stripe were removed or set
        self._epoch = 0
        self._owed: dict[str, bytes | None] = {}  # names to set or, with None, to delete
        self._paused_until = self._pause = 0.0
        self._has_warned = False
        self.lock = (
            threading.RLock()
        )  # held while a value from here enters the cache, or is removed

    def renew_after_fork(self) -> None:
        """In the child of a fork: replace a lock that another thread may have held."""
        self.lock = threading.RLock()

    # ---- names ---------------------------------------------------------------------------------

    def digest_of(self, form: bytes) -> str:
        """Return the digest of a key's form."""
        return hashlib.blake2b(form, digest_size=_DIGEST_BYTES).hexdigest()

    def _value_at(self, digest: str) -> str:
        return f"{self._folder}/values/{digest[:2]}/{digest[2:]}"

    def _removed_at(self, digest: str) -> str:
        return f"{self._folder}/{TOKENS}/removed-{digest}"

    def _tag_at(self, tag: str) -> str:
        digest = hashlib.blake2b(tag.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES)
        return f"{self._folder}/{TOKENS}/tag-{digest.hexdigest()}"

    @property
    def _generation_at(self) -> str:
        return f"{self._folder}/{TOKENS}/generation"

    # ---- reading -------------------------------------------------------------------------------

    def begin(self, form: bytes) -> Ticket:
        """Return the ticket of a lookup or a computation that begins now."""
        digest = self.digest_of(form)
        return Ticket(digest, form, self._epoch, self._changes[_stripe_of(digest)])

    def is_current(self, ticket: Ticket) -> bool:
        """Return whether this process has not removed or set the key since. Hold `lock`."""
        changes = self._changes[_stripe_of(ticket.digest)]
        return ticket.epoch == self._epoch and ticket.changes == changes

    def read(
        self,
        ticket: Ticket,
        note: Callable[[tuple[str, ...]], Any],
        tags: Iterable[str] = (),
        *,
        must: bool = False,
    ) -> Found | None:
        """Return the value of a key, or None; never raise because of the tier.

        The ticket gets the tokens with which what is computed instead can be written. `note` is
        called with the value's tags before their tokens are read here.
        """
        if not must and not self.figures.is_worth_asking():
            return None
        begun = time.perf_counter()
        if not self._is_settled():
            return None
        data = self._take_tokens(ticket, tuple(tags), with_value=True)
        found = None
        if data is not None:
            found = self._decode(ticket, data, note)
        seconds = time.perf_counter() - begun
        self.figures.count_read(found is not None, seconds)
        if found is not None:
            self.figures.count_read_bytes(found.nbytes, seconds)
        return found

    def _take_tokens(
        self, ticket: Ticket, tags: tuple[str, ...], *, with_value: bool
    ) -> bytes | None:
        """Fill in the ticket's tokens. Return the bytes of the value, if it is asked for."""
        names = [self._generation_at, self._removed_at(ticket.digest), *map(self._tag_at, tags)]
        if with_value:
            names.append(self._value_at(ticket.digest))
        got = self._try(lambda: self._store.get_many(names))
        if got is _FAILED:
            return None
        generation, removed, *rest = got
        data = rest.pop() if with_value else None
        if generation is None:
            generation = self._new_token(self._generation_at)
        for tag, token in zip(tags, rest, strict=True):
            current = self._new_token(self._tag_at(tag)) if token is None else token
            if current is None:
                return None
            ticket.tags[tag] = current
        ticket.generation, ticket.removed = generation, removed or b""
        return data

    def _new_token(self, name: str, seconds: float | None = None) -> bytes | None:
        token = secrets.token_bytes(_TOKEN_BYTES)
        done = self._try(lambda: self._store.set(name, token, seconds))
        return None if done is _FAILED else token

    def _decode(
        self, ticket: Ticket, data: bytes, note: Callable[[tuple[str, ...]], Any]
    ) -> Found | None:
        try:
            record, body = unpack(data)
            if not self._is_valid(record, ticket):
                return None
            left = None if record.expires is None else record.expires - time.time()
            if left is not None and left <= 0:
                return None
            noted = note(tuple(record.tags))
            if record.tags and not self._has_tokens(record.tags):
                return None
            room = self._room_for(2 * len(body))
            value = pickle.loads(body)
            del room
        except MemoryError:
            return None
        except Exception as error:
            self._damaged(ticket, error)
            return None
        return Found(value, left, noted, len(data))

    def _is_valid(self, record: Record, ticket: Ticket) -> bool:
        if record.form != ticket.form or record.generation != ticket.generation:
            return False
        # A tier may forget the token of a removed key; the record was removed then, too.
        return not ticket.removed or record.removed == ticket.removed

    def _has_tokens(self, tags: dict[str, bytes]) -> bool:
        got = self._try(lambda: self._store.get_many([self._tag_at(tag) for tag in tags]))
        return got is not _FAILED and got == list(tags.values())

    def _damaged(self, ticket: Ticket, error: Exception) -> None:
        if is_of_signal(error):
            raise error
        self.figures.errors += 1
        kind = "damaged" if isinstance(error, TornError) else "of a type that can't be unpickled"
        self._warn(f"a value in it is {kind} ({error!r}), and was removed")
        self._try(lambda: self._store.delete(self._value_at(ticket.digest)))

    # ---- writing -------------------------------------------------------------------------------

    def ticket_to_set(self, form: bytes, tags: Iterable[str]) -> Ticket:
        """Return a ticket for a value that is set now, once `remove` was called for the key."""
        ticket = self.begin(form)
        if self._is_settled():
            self._take_tokens(ticket, tuple(tags), with_value=False)
        return ticket

    def write(self, ticket: Ticket, value: Any, expires: float | None, cost: float | None) -> None:
        """Write a value, unless reading it would take longer than computing it."""
        if ticket.generation is None or not self._is_settled():
            return
        told = ticket.form, ticket.generation, ticket.removed, ticket.tags, expires
        try:
            data = pack(Record(*told), value)
        except Exception as error:  # it can't be pickled, or there is no room for a copy
            self.figures.dropped += 1
            if not isinstance(error, MemoryError):
                self._warn(f"a value of type {type(value).__qualname__} can't be pickled ({error})")
            return
        if not self.figures.is_worth_writing(cost, len(data)):
            return
        seconds = None if expires is None else expires - time.time()
        if seconds is not None and seconds <= 0:
            return
        done = self._try(lambda: self._store.set(self._value_at(ticket.digest), data, seconds))
        if done is not _FAILED:
            self.figures.count_written(len(data))

    def take_back(self, ticket: Ticket) -> None:
        """Remove what `write` may have written for a key that was removed or set meanwhile."""
        self._do({self._value_at(ticket.digest): None})

    # ---- removing ------------------------------------------------------------------------------

    def remove(self, form: bytes) -> None:
        """Make the value of a key invalid, in this process and all others, now and later."""
        digest = self.digest_of(form)
        token = secrets.token_bytes(_TOKEN_BYTES)
        self._do({self._removed_at(digest): token, self._value_at(digest): None})

    def removed_here(self, form: bytes) -> None:
        """Note that the key was removed or set, with `lock` held: earlier tickets are void."""
        self._changes[_stripe_of(self.digest_of(form))] += 1

    def clear(self) -> None:
        """Make all values invalid."""
        self._do({self._generation_at: secrets.token_bytes(_TOKEN_BYTES)})

    def cleared_here(self) -> None:
        """Note that all keys were removed, with `lock` held."""
        self._epoch += 1

    def discard_tag(self, tag: str) -> None:
        """Make all values with a tag invalid."""
        self._do({self._tag_at(tag): secrets.token_bytes(_TOKEN_BYTES)})

    def free_removed(self, before: float) -> None:
        """Free the bytes of values that `clear` made invalid before this time."""
        self._try(lambda: self._store.remove_all(self._folder, before))

    def _do(self, changes: dict[str, bytes | None]) -> None:
        """Set names, or delete them. What fails is owed: nothing is read before it is done."""
        with self.lock:
            self._owed.update(changes)
            if len(self._owed) > _OWED_MOST:
                self._owed = {self._generation_at: secrets.token_bytes(_TOKEN_BYTES)}
        self._is_settled()

    def _is_settled(self) -> bool:
        """Do what is owed. Return whether nothing is."""
        for name, data in list(self._owed.items()):
            if self._try(functools.partial(self._change, name, data)) is _FAILED:
                return False
            with self.lock:
                if self._owed.get(name, ABSENT) == data:
                    del self._owed[name]
        return True

    def _change(self, name: str, data: bytes | None) -> None:
        if data is None:
            self._store.delete(name)
        else:
            is_removed_key = f"/{TOKENS}/removed-" in name
            self._store.set(name, data, _TOKEN_SECONDS if is_removed_key else None)

    # ---- failures ------------------------------------------------------------------------------

    def _try(self, do: Callable[[], Any]) -> Any:
        """Return do(), or _FAILED. A tier that failed is asked again after a pause."""
        if time.monotonic() < self._paused_until:
            return _FAILED
        try:
            result = do()
        except Exception as error:
            if is_of_signal(error):
                raise
            self.figures.errors += 1
            self._pause = min(max(_PAUSE_LEAST, 2 * self._pause), _PAUSE_MOST)
            self._paused_until = time.monotonic() + self._pause
            self._warn(f"it failed ({error!r}), and is asked again after a pause")
            return _FAILED
        self._pause = 0.0
        return result

    def _warn(self, text: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            warn(f"cache {self._name!r}, below: {text}. info().below_errors counts", RuntimeWarning)


def _stripe_of(digest: str) -> int:
    return int(digest[:8], 16) % _STRIPES
