"""Anything may happen to the ranges of an arena in any order, full and partial ones."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from support import EAGER, PAGE, address_of, page_out, resident_pages, wait_offered

import vrange

PAGES = st.integers(1, 20)


class Model:
    """What a range has to hold, page by page: its stamp, or None where it was lost."""

    def __init__(self, r: vrange.Range, pages: int) -> None:
        self.r = r
        self.stamps: list[int | None] = [0] * pages
        self.partial = False
        self.pinned = True
        self.lost: set[int] = set()
        self.may_be_lost: set[int] = set()
        self.view: Any = None
        self.freed = False

    def words(self) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.r.buffer, np.uint64).reshape(len(self.stamps), -1)


class RangeMachine(RuleBasedStateMachine):
    ranges = Bundle("ranges")

    @initialize()
    def open(self) -> None:
        self.arena = vrange.Arena(64 * PAGE, name="machine")
        self.models: list[Model] = []
        self.stamp = 0

    @rule(target=ranges, pages=PAGES)
    def allocate(self, pages: int) -> Model:
        alive = [m for m in self.models if not m.freed]
        try:
            r = self.arena.allocate(pages * PAGE)
        except vrange.ArenaFullError:
            assert sum(len(m.stamps) for m in alive) + pages > 30
            model = Model.__new__(Model)
            model.freed = True
            return model
        model = Model(r, pages)
        assert not model.words().any()
        self.models.append(model)
        return model

    @rule(m=ranges)
    def write(self, m: Model) -> None:
        if m.freed or not m.pinned:
            return
        self.stamp += 1
        m.words()[:] = self.stamp
        m.stamps = [self.stamp] * len(m.stamps)

    @rule(m=ranges, partial=st.booleans())
    def mark_volatile(self, m: Model, partial: bool) -> None:
        if m.freed:
            return
        if m.view is not None and m.pinned:
            with contextlib.suppress(BufferError):
                m.r.mark_volatile(partial=partial)
                raise AssertionError("a view is alive")
            return
        if m.pinned:
            m.partial = partial
        m.r.mark_volatile(partial=partial)
        m.pinned = False

    @rule(m=ranges, data=st.data())
    def kernel_takes(self, m: Model, data: st.DataObject) -> None:
        if m.freed:
            return
        first = data.draw(st.integers(0, len(m.stamps) - 1))
        count = data.draw(st.integers(1, len(m.stamps) - first))
        if not m.pinned and not EAGER and m.r.state == "volatile":
            wait_offered(m.r._handle)
        address = address_of(m.r._handle)
        before = resident_pages(address, len(m.stamps) * PAGE)
        page_out(address + first * PAGE, count * PAGE)
        after = resident_pages(address, len(m.stamps) * PAGE)
        if m.pinned or EAGER:
            assert before == after, "the kernel took what it was never offered"
            return
        gone = {page for page in range(len(m.stamps)) if not after[page]}
        m.may_be_lost |= gone

    @rule(m=ranges)
    def discard(self, m: Model) -> None:
        if m.freed:
            return
        if m.pinned:
            with contextlib.suppress(ValueError):
                m.r.discard()
                raise AssertionError("it is pinned")
            return
        m.r.discard()
        assert m.r.resident_bytes == 0
        m.partial = False
        m.may_be_lost = set(range(len(m.stamps)))

    @rule(m=ranges)
    def pin(self, m: Model) -> None:
        if m.freed:
            return
        purged = m.r.pin()
        if not m.pinned:
            new = m.may_be_lost if m.partial else set()
            if m.may_be_lost and not m.partial:
                new = set(range(len(m.stamps)))
            for page in new:
                m.stamps[page] = None
            m.lost |= new
            m.may_be_lost = set()
            m.pinned = True
        told = {
            page
            for offset, length in purged.blocks
            for page in range(offset // PAGE, (offset + length) // PAGE)
        }
        assert told == m.lost
        assert bool(purged) == bool(m.lost)

    @rule(m=ranges)
    def refilled(self, m: Model) -> None:
        if m.freed or not m.pinned:
            return
        self.write(m)
        m.r.refilled()
        m.lost = set()

    @rule(m=ranges)
    def hold_a_view(self, m: Model) -> None:
        if not m.freed and m.pinned and m.view is None:
            m.view = m.words()

    @rule(m=ranges)
    def drop_the_view(self, m: Model) -> None:
        if not m.freed:
            m.view = None

    @rule(m=ranges)
    def free(self, m: Model) -> None:
        if m.freed:
            return
        if m.view is not None:
            with contextlib.suppress(BufferError):
                m.r.free()
                raise AssertionError("a view is alive")
            return
        m.r.free()
        m.freed = True
        assert m.r.state == "freed"

    @rule()
    def close(self) -> None:
        views = [(m.view, m.view.copy()) for m in self.models if not m.freed and m.view is not None]
        self.arena.close()
        for m in self.models:
            if not m.freed:
                assert m.r.state == "freed"
                m.freed = True
                m.view = None
        for view, wanted in views:
            assert (view == wanted).all()
        self.open()

    @invariant()
    def content_is_what_was_written_or_zeros_where_lost(self) -> None:
        for m in self.models:
            if not m.freed and m.pinned:
                words = m.words()
                for page, stamp in enumerate(m.stamps):
                    assert (words[page] == (stamp or 0)).all()

    @invariant()
    def states_are_told(self) -> None:
        for m in self.models:
            if m.freed:
                continue
            state = m.r.state
            if m.lost:
                assert state == "purged"
            elif m.pinned:
                assert state == "pinned"
            elif not m.may_be_lost:
                assert state == "volatile"

    @invariant()
    def bytes_add_up(self) -> None:
        alive = [m for m in self.models if not m.freed]
        now = self.arena.stats()
        assert now.ranges == len(alive)
        pinned = sum(len(m.stamps) for m in alive if m.pinned) * PAGE
        all_bytes = sum(len(m.stamps) for m in alive) * PAGE
        assert now.pinned_bytes == pinned
        assert now.idle_bytes + now.offered_bytes + now.purged_bytes == all_bytes - pinned

    def teardown(self) -> None:
        if hasattr(self, "arena"):
            self.close()
            self.arena.close()


TestRanges = RangeMachine.TestCase
TestRanges.settings = settings(max_examples=60, stateful_step_count=40)
