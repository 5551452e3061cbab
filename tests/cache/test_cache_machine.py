"""Anything may happen to a cache in any order; values are equal or absent, and never another's."""

from __future__ import annotations

import contextlib
import gc
from typing import Any, ClassVar

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from support import EAGER, PAGE, address_of, page_out, resident_pages, wait_until

import vrange
from vrange._core import ffi, hit, lib

KEYS = st.integers(0, 11)
SIZES = st.sampled_from([0, 3, 200, 2048, 2049, PAGE, 3 * PAGE + 7, 20 * PAGE, 120 * PAGE])


def content(kind: str, size: int, stamp: int) -> Any:
    """A value that tells which one it is in every part of it."""
    if kind == "array":
        return np.full(-(-size // 4), stamp, np.uint32)
    if kind == "bytes":
        return (b"%08d" % stamp * (size // 8 + 1))[:size]
    if kind == "text":
        return (f"{stamp:08d}" * (size // 8 + 1))[:size]
    return {"stamp": stamp, "table": np.full(-(-size // 4), stamp, np.uint32), "text": "x" * 50}


def same(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray):
        return type(two) is np.ndarray and one.dtype == two.dtype and np.array_equal(one, two)
    if isinstance(one, dict):
        return one["stamp"] == two["stamp"] and np.array_equal(one["table"], two["table"])
    return type(one) is type(two) and one == two


class CacheMachine(RuleBasedStateMachine):
    """The model is a plain dict. Its entries may be missing in the cache, and never the other way
    round.
    """

    options: ClassVar[dict[str, Any]] = {"hot_bytes": 0}

    @initialize()
    def open(self) -> None:
        self.cache: vrange.VolatileCache[int, Any] = vrange.VolatileCache(
            name="machine", arena_bytes="4MiB", **self.options
        )
        self.model: dict[int, Any] = {}
        self.held: list[tuple[Any, Any]] = []
        self.asked = 0
        self.stamp = 0

    def made(self, kind: str, size: int) -> Any:
        self.stamp += 1
        return content(kind, size, self.stamp)

    @rule(key=KEYS, kind=st.sampled_from(["array", "bytes", "text", "mixed"]), size=SIZES)
    def store(self, key: int, kind: str, size: int) -> None:
        self.cache[key] = self.model[key] = self.made(kind, size)

    @rule(key=KEYS, kind=st.sampled_from(["array", "bytes", "mixed"]), size=SIZES)
    def compute(self, key: int, kind: str, size: int) -> None:
        made = []

        def compute() -> Any:
            made.append(self.made(kind, size))
            return made[0]

        got = self.cache.get_or_compute(key, compute)
        self.asked += 1
        if made:
            self.model[key] = made[0]
        assert same(got, self.model[key])

    @rule(key=KEYS, act=st.sampled_from(["sets", "deletes", "clears"]), size=SIZES)
    def compute_and_change(self, key: int, act: str, size: int) -> None:
        """A computation that changes its own key: what it did stands, and its result does not."""
        computed, inside = self.made("bytes", size), self.made("array", size)
        ran = []

        def compute() -> Any:
            ran.append(1)
            if act == "sets":
                self.cache[key] = inside
            elif act == "deletes":
                assert self.cache.pop(key, None) is None
                self.asked += 1
            else:
                self.cache.clear()
                self.asked = 0
            return computed

        self.asked += 1
        got = self.cache.get_or_compute(key, compute)
        if not ran:
            assert same(got, self.model[key])
            return
        assert same(got, computed)
        if act == "clears":
            self.model.clear()
        self.model.pop(key, None)
        if act == "sets":
            self.model[key] = inside
        else:
            assert key not in self.cache

    @rule(share=st.sampled_from([0.0, 0.5, 1.0]))
    def hot_front_shrinks(self, share: float) -> None:
        hit.use_hot_share(share)
        assert self.cache._core.hot_bytes <= self.cache._core.hot_limit
        hit.use_hot_share(1.0)

    @rule(key=KEYS, hold=st.booleans())
    def look(self, key: int, hold: bool) -> None:
        self.asked += 1
        got = self.cache.get(key, self)
        if got is not self:
            assert same(self.model[key], got)
            if hold and len(self.held) < 6:
                self.held.append((got, self.model[key]))

    @rule(number=st.integers(0, 5))
    def let_go(self, number: int) -> None:
        del self.held[number : number + 1]

    @rule(key=KEYS)
    def delete(self, key: int) -> None:
        with contextlib.suppress(KeyError):
            del self.cache[key]
            assert key in self.model
        self.model.pop(key, None)
        assert key not in self.cache

    @rule(key=KEYS)
    def pop(self, key: int) -> None:
        self.asked += 1
        got = self.cache.pop(key, self)
        if got is not self:
            assert same(self.model[key], got)
        self.model.pop(key, None)

    @rule(key=KEYS)
    def discard_one(self, key: int) -> None:
        self.cache.discard(key)

    @rule()
    def discard_all(self) -> None:
        self.cache.discard()

    @rule(number=st.integers(0, 30), pages=st.integers(1, 4))
    def kernel_takes_some(self, number: int, pages: int) -> None:
        handles = sorted(self.cache._core.handles(None))
        info = ffi.new("vrange_range_info *")
        handle = handles[number % len(handles)] if handles else 0
        if lib.vrange_range_read(handle, info) != lib.VRANGE_OK:
            return
        address, nbytes = address_of(handle), min(pages, info.bytes // PAGE) * PAGE
        before = sum(resident_pages(address, nbytes))
        left = page_out(address, nbytes)  # pinned or idle: nothing; offered: maybe
        assert left == before or not (EAGER or info.state == lib.VRANGE_STATE_PINNED)

    @rule(nbytes=st.sampled_from([PAGE, 1 << 20]))
    def shed(self, nbytes: int) -> None:
        if self.cache._core.arena:
            lib.vrange_arena_shed(ffi.cast("vrange_arena *", self.cache._core.arena), nbytes)

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()
        self.asked = 0

    @rule()
    def iterate(self) -> None:
        before = self.counted()
        for key, value in self.cache.items():
            assert same(self.model[key], value)
        self.asked += self.counted() - before

    @rule()
    def close(self) -> None:
        self.cache.close()
        for got, wanted in self.held:
            assert same(wanted, got)
        self.open()

    def every_byte_has_one_state(self) -> bool:
        """Gauges are read in turn: what the caretaker offers meanwhile counts twice, or not."""
        info = self.cache.info()
        states = info.pinned_bytes + info.idle_bytes + info.offered_bytes + info.purged_bytes
        if self.held:
            return states >= self.cache._core.bytes
        return info.pinned_bytes <= info.hot_bytes + PAGE and states == self.cache._core.bytes

    def counted(self) -> int:
        info = self.cache.info()
        return int(info.hits + info.misses + info.purged)

    @invariant()
    def the_core_agrees_with_itself(self) -> None:
        self.cache._core.check()

    @invariant()
    def held_values_never_change(self) -> None:
        for got, wanted in self.held:
            assert same(wanted, got)

    @invariant()
    def keys_are_those_of_the_model(self) -> None:
        keys = list(self.cache)
        assert len(keys) == len(set(keys))
        assert set(keys) <= set(self.model)
        # The reserve may find a loss at any moment.
        assert len(keys) >= len(self.cache) >= self.cache.info().entries

    @invariant()
    def counters_are_consistent(self) -> None:
        info = self.cache.info()
        in_entries = self.cache._core.bytes
        assert info.hits == info.hot_hits + info.resident_hits
        assert info.hits + info.misses + info.purged == self.asked
        wait_until(self.every_byte_has_one_state, "bytes have two states, or none")
        limit = self.options.get("max_bytes")
        assert limit is None or in_entries <= limit + sum(120 * PAGE for _ in self.held)

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.close()
            address = self.cache._account.read()
            self.held.clear()
            gc.collect()
            assert self.cache._account.read().ranges == 0, address


class HotCacheMachine(CacheMachine):
    options: ClassVar[dict[str, Any]] = {"hot_bytes": 100 * PAGE}


class FewEntriesMachine(CacheMachine):
    options: ClassVar[dict[str, Any]] = {"hot_bytes": 30 * PAGE, "max_entries": 5}

    @invariant()
    def no_more_than_so_many(self) -> None:
        assert len(self.cache) <= 5


class BoundedCacheMachine(CacheMachine):
    options: ClassVar[dict[str, Any]] = {"hot_bytes": 0, "max_bytes": 250 * PAGE}


BRIEF = settings(max_examples=30, stateful_step_count=40)
TestCache = CacheMachine.TestCase
TestHotCache = HotCacheMachine.TestCase
TestBoundedCache = BoundedCacheMachine.TestCase
TestFewEntries = FewEntriesMachine.TestCase
for case in (TestCache, TestHotCache, TestBoundedCache, TestFewEntries):
    case.settings = BRIEF
del case
