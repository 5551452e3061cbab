"""The lower tier of one cache: what is read there, what is written, and what is not valid any more.

An invalidation reaches the tier before its call returns. It writes a new token: of the cache
(`clear`), of a tag, or of a key. A record is read only if its tokens are the current ones. So an
old value does not come back after a crash, nor if a slower process writes it later.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
import urllib.parse
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from vrange._cache.signal_errors import is_of_signal
from vrange.tiers.directory import TOKENS
from vrange.tiers.fallible import FAILED, TOKEN_BYTES, Fallible
from vrange.tiers.figures import Figures
from vrange.tiers.record import Packed, Record, TornError, load, unpack
from vrange.tiers.stores import Store

__all__ = ["ABSENT", "Below", "Found", "Ticket"]

ABSENT: Any = object()
_DIGEST_BYTES = 16
_STRIPES = 1024
_SMALL_BYTES = 1 << 16
_KNOWN_SECONDS = 1.0  # what is set with an older token of the cache might never be read


_all: weakref.WeakSet[Below] = weakref.WeakSet()


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
    label : str
        The cache's name, for figures and messages.
    room_for : callable
        Returns an object that reserves so many bytes while it lives. Raises MemoryError.

    """

    def __init__(
        self, store: Store, name: str, label: str, room_for: Callable[[int], object]
    ) -> None:
        self.figures = Figures(label)
        self._store, self._room_for = store, room_for
        self._folder = f"vrange/{urllib.parse.quote(name, safe='').replace('.', '%2E')}"
        self._changes = [0] * _STRIPES  # how many keys of each stripe were removed or set
        self._epoch = 0
        self._generation: tuple[bytes | None, float] = (None, 0.0)  # as last read, until when
        self._reached = Fallible(store, label, self.figures)
        # Held while a value from here enters the cache, and while one is removed.
        self.lock = threading.RLock()
        _all.add(self)

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
        if not self._reached.is_settled():
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
        got = self._reached.attempt(lambda: self._get_many(names))
        if got is FAILED:
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
        self._generation = generation, time.monotonic() + _KNOWN_SECONDS
        return data

    def _get_many(self, names: list[str]) -> list[bytes | None]:
        try:
            return self._store.get_many(names, self._room_for_read)
        except MemoryError:  # reading it must not be what ends the process
            return [None] * len(names)

    def _room_for_read(self, nbytes: int) -> object:
        return self._room_for(2 * nbytes) if nbytes > _SMALL_BYTES else None  # it, and its value

    def _new_token(self, name: str, seconds: float | None = None) -> bytes | None:
        token = secrets.token_bytes(TOKEN_BYTES)
        done = self._reached.attempt(lambda: self._store.set(name, token, seconds))
        return None if done is FAILED else token

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
            value = load(body)
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
        got = self._reached.attempt(lambda: self._get_many([self._tag_at(tag) for tag in tags]))
        return got is not FAILED and got == list(tags.values())

    def _damaged(self, ticket: Ticket, error: Exception) -> None:
        if is_of_signal(error):
            raise error
        self.figures.count_error()
        kind = "damaged" if isinstance(error, TornError) else "of a type that can't be unpickled"
        self._reached.warn(f"a value in it is {kind} ({error!r}), and was removed")
        self._reached.attempt(lambda: self._store.delete(self._value_at(ticket.digest)))

    # ---- writing -------------------------------------------------------------------------------

    def ticket_to_set(self, form: bytes, removed: bytes, tags: Iterable[str]) -> Ticket:
        """Return a ticket for a value that is set now. `removed` is what `remove` returned."""
        ticket = self.begin(form)
        names = tuple(tags)
        known, until = self._generation
        if known is not None and not names and time.monotonic() < until:
            ticket.generation = known
        else:
            self.take_tokens(ticket, names)
        ticket.removed = removed  # if another process removes the key meanwhile, it is not valid
        return ticket

    def take_tokens(self, ticket: Ticket, tags: Iterable[str]) -> None:
        """Fill in the ticket of a value that is not looked for first."""
        if self._reached.is_settled():
            self._take_tokens(ticket, tuple(tags), with_value=False)

    def write(self, ticket: Ticket, value: Any, expires: float | None, cost: float | None) -> None:
        """Write a value, unless reading it would take longer than computing it."""
        if ticket.generation is None or not self._reached.is_settled():
            return
        told = ticket.form, ticket.generation, ticket.removed, ticket.tags, expires
        try:
            packed = Packed(value)
            room = self._room_for(packed.nbytes)
            data = packed.join(Record(*told))
            del packed, room
        except Exception as error:  # it can't be pickled, or there is no room for a copy
            self.figures.dropped += 1
            if not isinstance(error, MemoryError):
                self._reached.warn(
                    f"a value of type {type(value).__qualname__} can't be pickled ({error})"
                )
            return
        if not self.figures.is_worth_writing(cost, len(data)):
            return
        seconds = None if expires is None else expires - time.time()
        if seconds is not None and seconds <= 0:
            return
        done = self._reached.attempt(
            lambda: self._store.set(self._value_at(ticket.digest), data, seconds)
        )
        if done is not FAILED:
            self.figures.count_written(len(data))

    def take_back(self, ticket: Ticket) -> None:
        """Remove what `write` may have written for a key that was removed or set meanwhile."""
        self._change({self._value_at(ticket.digest): None})

    def _change(self, changes: dict[str, bytes | None]) -> None:
        self._reached.change(changes, self._generation_at)

    # ---- removing ------------------------------------------------------------------------------

    def remove(self, form: bytes) -> bytes:
        """Make the value of a key invalid, in this process and all others, now and later.

        Return the token with which a new value is valid.
        """
        digest = self.digest_of(form)
        token = secrets.token_bytes(TOKEN_BYTES)
        self._change({self._removed_at(digest): token, self._value_at(digest): None})
        return token

    def removed_here(self, form: bytes) -> None:
        """Note that the key was removed or set, with `lock` held: earlier tickets are void."""
        self._changes[_stripe_of(self.digest_of(form))] += 1

    def clear(self) -> None:
        """Make all values invalid."""
        self._generation = None, 0.0
        self._change({self._generation_at: secrets.token_bytes(TOKEN_BYTES)})

    def cleared_here(self) -> None:
        """Note that all keys were removed, with `lock` held."""
        self._epoch += 1

    def discard_tag(self, tag: str) -> None:
        """Make all values with a tag invalid."""
        self._change({self._tag_at(tag): secrets.token_bytes(TOKEN_BYTES)})

    def free_removed(self, before: float) -> None:
        """Free the bytes of values that `clear` made invalid before this time."""
        self._reached.attempt(lambda: self._store.remove_all(self._folder, before))


def _after_fork_in_child() -> None:
    # A thread that does not exist here may have held the lock.
    for below in list(_all):
        below.lock = threading.RLock()
        below._reached.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _stripe_of(digest: str) -> int:
    return int(digest[:8], 16) % _STRIPES
