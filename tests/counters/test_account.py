"""Accounts: names that can label metrics, and counters that end with their owner."""

from __future__ import annotations

import gc

import pytest

import vrange
from vrange._core import lib
from vrange._counters.account import Account
from vrange._counters.stats import AccountStats


def named(name: str) -> list[AccountStats]:
    return [account for account in vrange.stats().accounts if account.name == name]


@pytest.mark.parametrize("name", ["a", "thumbs", "ümläut", "x" * 63, "é" * 31, "a b/c{d}"])
def test_names(name: str) -> None:
    account = Account(name, lib.VRANGE_KIND_CACHE)
    assert account.read().name == name
    assert [found.name for found in named(name)] == [name]


@pytest.mark.parametrize("name", ["", "x" * 64, "é" * 32, "a\nb", "a\0b", "\ud800", "\x7f"])
def test_names_that_can_not_label(name: str) -> None:
    with pytest.raises(ValueError, match="printable characters"):
        Account(name, lib.VRANGE_KIND_CACHE)


@pytest.mark.parametrize("name", [None, 1, b"bytes"])
def test_names_that_are_no_strings(name: object) -> None:
    with pytest.raises(TypeError, match="name must be a string"):
        Account(name, lib.VRANGE_KIND_CACHE)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name must be a string"):
        vrange.Arena("1MiB", name=name)  # type: ignore[arg-type]


def test_two_of_a_name_are_counted_apart() -> None:
    with vrange.Arena("1MiB", name="twin") as one, vrange.Arena("2MiB", name="twin"):
        held = one.allocate(4096)
        assert held.state == "pinned"
        assert sorted(found.reserved_bytes for found in named("twin")) == [1 << 20, 2 << 20]
        assert sorted(found.ranges for found in named("twin")) == [0, 1]


def test_collected_accounts_are_told_no_more() -> None:
    account = Account("mayfly", lib.VRANGE_KIND_CACHE)
    assert named("mayfly")
    del account
    gc.collect()
    assert not named("mayfly")


def test_closed_account_is_not_used_again_while_its_memory_is_held() -> None:
    arena = vrange.Arena("1MiB", name="held")
    view = arena.allocate(4096).buffer
    arena.close()
    del arena
    gc.collect()
    others = [Account(f"other-{number}", lib.VRANGE_KIND_ARENA) for number in range(50)]
    view[:4] = b"here"
    view.release()
    del view
    gc.collect()
    for other in others:
        counters = other.read()
        assert counters.ranges == counters.reserved_bytes == counters.pinned_bytes == 0


def test_recycled_account_counts_from_zero() -> None:
    for _ in range(100):
        with vrange.Arena("1MiB", name="again") as arena:
            r = arena.allocate(4096)
            r.mark_volatile()
            r.discard()
            assert arena.stats().purged_total_bytes == 4096
        del arena, r
    gc.collect()
    assert not named("again")
    fresh = Account("fresh", lib.VRANGE_KIND_ARENA).read()
    assert fresh.purged_total_bytes == fresh.reserved_bytes == fresh.purged_bytes == 0
