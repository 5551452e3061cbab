"""The values of a shared cache, as one process finds and stores them.

A small value is in the index; a large one is in the memory of the process that computed it. The
core of this process has the large values that it computed, and copies of some that it reads often,
each under the stamp of its record. A value is answered only if the index says that its stamp is
still the key's. So a removal holds for all processes at once, and no process is told of it.
"""

from __future__ import annotations

import errno
import time
from typing import Any

from vrange import _stable_keys as stable_keys
from vrange._cache.not_kept import Source
from vrange._cache.parameters import CacheParameters, nanoseconds_of_ttl
from vrange._core import ffi, hit, lib
from vrange._counters.account import Account
from vrange._service import blob
from vrange._service.index import Found, Index
from vrange._service.known import Known, known_of
from vrange._service.near import NearCopies
from vrange._service.unshared import UnsharedKeys

__all__ = ["ABSENT", "SharedValues"]

ABSENT: Any = object()
_RANGE, _ERROR = lib.VRANGE_RECORD_RANGE, lib.VRANGE_RECORD_ERROR
_KNOWN_MOST = 16384  # keys that this process remembers
_KNOWN_BYTES_MOST = 512  # of the form of such a key
_ERROR_NS = 2_000_000_000  # how long waiters may take to read what a computation raised
_BYTES_MOST = 1 << 60


class SharedValues:
    """Finds, stores and removes values in an index and in this process's core."""

    def __init__(
        self,
        index: Index,
        core: hit.CacheCore,
        account: Account,
        source: Source,
        given: CacheParameters,
        reads: hit.SharedReads,
    ) -> None:
        self.index, self.core, self._account = index, core, account
        self._reads, self._followed = reads, None
        self._source, self._given = source, given
        self._ttl_ns = nanoseconds_of_ttl(given.ttl)
        self._known = reads.known
        self._near = NearCopies(core, index, reads, is_automatic=given.hot_bytes == "auto")
        self._unshared = UnsharedKeys()

    def know(self, key: Any) -> Known:
        """Return what is known of a key. Raise TypeError if processes can't share it."""
        known = self._known.get(key)
        if known is None:
            form = stable_keys.form_of(key)
            known = self._unshared.get(form) or known_of(form)
            if len(known.form) <= _KNOWN_BYTES_MOST:
                if len(self._known) >= _KNOWN_MOST:
                    self._known.clear()
                self._known[key] = known
        return known

    # ---- finding -------------------------------------------------------------------------------

    def look(self, known: Known) -> Any:
        """Return the value of a key, or ABSENT."""
        self._follow()
        value = self._reads.find(known, ABSENT)
        if value is not ABSENT:
            return value
        found = self.index.find(known.digest)
        self._let_go(known, found)
        if found is None or found.kind == _ERROR:
            return ABSENT
        return self.value_of(known, found)

    def _follow(self) -> None:
        """Look in the index as it is mapped now: a child of a fork may have mapped another one."""
        if self._followed is not self.index.pointer:
            self._followed = self.index.pointer
            self._reads.use_index(int(ffi.cast("uintptr_t", self._followed)))

    def _note(self, known: Known, at: int, word: int, stamp: int) -> None:
        """Note that this process has a key's value, as long as a word of the index is the same."""
        self._follow()
        self._reads.note(known, at, word, stamp)

    def _let_go(self, known: Known, found: Found | None) -> None:
        """Drop what this process has of a record that was removed or replaced since."""
        stamp = known.stamp
        if stamp is not None and (found is None or found.stamp != stamp):
            known.forget()
            self.core.remove(stamp)

    def value_of(self, known: Known, found: Found, *, waited: bool = False) -> Any:
        """Return the value of a record, or ABSENT if it is gone: then the record goes as well.

        Raise NotSharedError if this process may not read its owner's memory.
        """
        if found.kind != _RANGE:
            return self._decoded(known, found, found.payload, False, waited)
        value = self._own_value(known, found)
        if value is not ABSENT:
            return value
        try:
            copy = self.index.read(found)
        except MemoryError:  # no room for a copy: it is there for others
            return ABSENT
        if copy is None:
            self.index.drop(found)
            return ABSENT
        try:
            return self._decoded(known, found, copy.view(), copy.is_lent, waited)
        finally:
            copy.give_back()

    def _decoded(self, known: Known, found: Found, data: Any, is_lent: bool, waited: bool) -> Any:
        try:
            value = blob.value_in(
                data,
                found.stamp,
                known.digest,
                known.form,
                copies=self._given.copy,
                is_lent=is_lent,
            )
        except blob.TornError:
            self.index.drop(found)
            return ABSENT
        except MemoryError:  # no room for the caller's copies: it is there for others
            return ABSENT
        except Exception as error:
            self._source.give_up(known.form, error)
            self.index.drop(found)
            return ABSENT
        if waited:
            self.core.count_request(True)
        else:
            self.core.count_hit()
        if known.reads >= known.near_at:
            self._come_near(known, found, data, value)
        known.reads += 1
        return value

    def _own_value(self, known: Known, found: Found) -> Any:
        """Return the value of a record that this process has itself, or ABSENT."""
        if not self.index.is_own(found) and not self._near.has(found.stamp):
            return ABSENT
        try:
            value = self.core.get(found.stamp, ABSENT)
        except ValueError:
            if self.core.closed:  # while this caller waited
                return ABSENT
            raise
        if value is not ABSENT:
            self._note(known, *found.token)
        return value

    def _come_near(self, known: Known, found: Found, data: Any, value: Any) -> None:
        """Keep a copy of a value that this process reads again."""
        if self.core.closed or not self._near.admits(known, len(data)):
            return
        copies = self._given.copy
        copy = blob.Blob([data], len(data), copies or not blob.is_plain(value), copies)
        self._near.add(known, found.stamp, copy, found.expires_ns)
        self._note(known, *found.token)

    # ---- storing -------------------------------------------------------------------------------

    def changes_of(self, known: Known) -> int:
        """Return a number that is another one after each removal of the key."""
        return int(lib.vrange_shared_changes(self.index.pointer, known.digest))

    def store(
        self,
        known: Known,
        value: Any,
        changes: int | None,
        *,
        cost_ns: int = 0,
        expires_ns: int = 0,
    ) -> bool:
        """Store and publish a value. Return whether it is kept.

        Without `changes` it replaces what the key has, and what is being computed for it. With
        them it is not published if the key was removed or set since they were read.
        """
        if not expires_ns and self._ttl_ns:
            expires_ns = time.monotonic_ns() + self._ttl_ns
        record = self._record(known, expires_ns, changes)
        is_kept = False
        try:
            coded = self._source.code(value, lambda: self._encode(known, value, record.stamp))
            if coded is not None:
                is_kept = self._publish(known, record, coded, cost_ns)
        except MemoryError:
            lib.vrange_account_refused(self._account.pointer)
        if not is_kept and changes is None:
            self.remove(known)
        return is_kept

    def _encode(self, known: Known, value: Any, stamp: int) -> blob.Blob:
        copies = self._given.copy
        return blob.encode(value, stamp, known.digest, known.form, _BYTES_MOST, copies=copies)

    def _record(self, known: Known, expires_ns: int, changes: int | None) -> Any:
        record = ffi.new("vrange_shared_key *")
        ffi.memmove(record.digest, known.digest, lib.VRANGE_DIGEST_BYTES)
        record.stamp = lib.vrange_shared_stamp(self.index.pointer)
        record.expires_ns = expires_ns
        record.replaces = changes is None
        record.changes = changes or 0
        return record

    def _publish(self, known: Known, record: Any, coded: blob.Blob, cost_ns: int) -> bool:
        out = ffi.new("vrange_shared_found *")
        pointer = self.index.pointer
        if coded.nbytes <= lib.VRANGE_PAYLOAD_MOST:
            payload = b"".join(coded.parts)
            result = lib.vrange_shared_put(pointer, record, payload, len(payload), out)
            if result == 0:
                self._let_go(known, None)
            return bool(result == 0)
        stamp = record.stamp
        try:
            self.core.store(stamp, coded, record.expires_ns, cost_ns)
        except ValueError:
            if self.core.closed:  # during the computation
                return False
            raise
        note = blob.note_of(coded, known.form)
        for handle in self.core.handles((stamp,)):
            result = lib.vrange_shared_put_range(
                pointer, record, handle, coded.nbytes, note, len(note), out
            )
            if result == 0:
                self._let_go(known, None)
                self._note(known, out.at, out.word, stamp)
                return True
            if result in (-errno.ENOTSUP, -errno.ENOSPC):
                return self._keep_unshared(known, record, stamp)
        self.core.remove(stamp)
        return False

    def _keep_unshared(self, known: Known, record: Any, stamp: int) -> bool:
        """Keep a value in this process alone, until any process removes or sets the key."""
        if record.replaces:
            self.remove(known)
            record.changes = self.changes_of(known)
        at = lib.vrange_shared_changes_at(self.index.pointer, known.digest)
        self._note(known, at, record.changes, stamp)
        self._unshared.add(known)
        if self._unshared.is_long:
            self.unshared_now()
        return True

    def unshared_now(self) -> list[Known]:
        """Return the keys whose values this process keeps alone. Drop those that are gone."""
        kept = []
        for known in self._unshared.all():
            if self.has_here(known):
                kept.append(known)
            elif self._unshared.remove(known):
                self._let_go(known, None)
        return kept

    def store_error(self, known: Known, error: bytes, changes: int, landing: int) -> None:
        """Publish what a computation raised, for the callers that wait for it."""
        record = self._record(known, time.monotonic_ns() + _ERROR_NS, changes)
        out = ffi.new("vrange_shared_found *")
        lib.vrange_shared_put_error(self.index.pointer, record, landing, error, len(error), out)

    # ---- removing ------------------------------------------------------------------------------

    def remove(self, known: Known) -> bool:
        """Remove a key's value, in all processes. Return whether there was one."""
        was_here = self._reads.is_current(known)  # though it may not be published
        stamp = known.forget()
        removed = ffi.new("int *")
        lib.vrange_shared_change(self.index.pointer, known.digest, removed)
        if stamp is not None:
            was_here = self.core.remove(stamp) and was_here
        return bool(removed[0]) or was_here

    def take(self, known: Known) -> Any:
        """Remove a key's value and return it, or ABSENT. One caller of all processes gets it."""
        while (found := self.index.find(known.digest)) is not None and found.kind != _ERROR:
            value = self.value_of(known, found)
            if value is not ABSENT and self.index.drop(found):
                self.remove(known)
                return value
        value = self._reads.here(known, ABSENT)
        # Also if there was none: what is being computed must not be stored.
        return value if self.remove(known) else ABSENT

    def clear(self) -> None:
        """Remove all values, in all processes."""
        lib.vrange_shared_clear(self.index.pointer)
        self.forget()

    def forget(self) -> None:
        """Forget what this process knows of keys."""
        self._known.clear()
        self._near.forget()
        self._unshared.clear()

    # ---- as a whole ----------------------------------------------------------------------------

    def has(self, known: Known) -> bool:
        """Return whether a key seems to have a value."""
        if self.has_here(known):
            return True
        found = self.index.find(known.digest)
        return found is not None and found.kind != _ERROR

    def has_here(self, known: Known) -> bool:
        """Return whether this process seems to have a key's value itself."""
        stamp = known.stamp
        return stamp is not None and self._reads.is_current(known) and self.core.contains(stamp)

    def count(self) -> int:
        """Return the number of values, including those whose loss was not noticed yet."""
        return self.index.count() + len(self.unshared_now())

    def stamps_of(self, keys: tuple[Any, ...]) -> list[int]:
        """Return the stamps of the records that keys have."""
        stamps = []
        for key in keys:
            known = self.know(key)
            stamp, found = known.stamp, self.index.find(known.digest)
            if found is not None:
                stamps.append(found.stamp)
            elif stamp is not None and self._reads.is_current(known):
                stamps.append(stamp)
        return stamps
