"""What is remembered of values that are gone."""

from __future__ import annotations

from vrange._cache.ghosts import Ghosts


def test_uses_are_halved_with_every_epoch() -> None:
    ghosts = Ghosts()
    ghosts.remember("k", 160, 5, purged=True, entries=0)
    assert [ghosts.uses("k", epoch) for epoch in (5, 6, 7, 12, 13, 5000)] == [160, 80, 40, 1, 0, 0]


def test_who_took_it() -> None:
    ghosts = Ghosts()
    ghosts.remember("taken", 1, 0, purged=True, entries=0)
    ghosts.remember("let go", 1, 0, purged=False, entries=0)
    assert ghosts.was_purged("taken")
    assert not ghosts.was_purged("let go")
    assert not ghosts.was_purged("never seen")
    assert ghosts.uses("never seen", 3) == 0


def test_latest_word_counts_and_forget_takes_it_back() -> None:
    ghosts = Ghosts()
    ghosts.remember("k", 16, 0, purged=True, entries=0)
    ghosts.remember("k", 32, 0, purged=False, entries=0)
    assert ghosts.uses("k", 0) == 32
    assert not ghosts.was_purged("k")
    ghosts.forget("k")
    ghosts.forget("k")
    assert ghosts.uses("k", 0) == 0


def test_oldest_are_forgotten_beyond_the_number_of_entries() -> None:
    ghosts = Ghosts()
    for number in range(10_000):
        ghosts.remember(number, 16, 0, purged=True, entries=5000)
    kept = [number for number in range(10_000) if ghosts.was_purged(number)]
    assert 4600 <= len(kept) <= 5000
    assert kept == list(range(10_000 - len(kept), 10_000))
    ghosts.remember("one more", 16, 0, purged=True, entries=0)
    kept = [number for number in range(10_000) if ghosts.was_purged(number)]
    assert 3800 <= len(kept) <= 4095
    assert kept[-1] == 9999
    assert ghosts.was_purged("one more")


def test_remembering_again_makes_it_the_youngest() -> None:
    ghosts = Ghosts()
    for number in range(4096):
        ghosts.remember(number, 16, 0, purged=True, entries=0)
    ghosts.remember(0, 16, 0, purged=True, entries=0)
    ghosts.remember("one more", 16, 0, purged=True, entries=0)
    assert ghosts.was_purged(0)
    assert not ghosts.was_purged(1)


def test_forgetting_the_oldest_costs_the_same_however_many_there_are() -> None:
    """Counted in items looked at: a dict's first item is behind all that were deleted there."""

    class Counting(dict):  # type: ignore[type-arg]
        looks = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            Counting.looks += 1
            return super().__iter__()

    ghosts = Ghosts()
    ghosts.by_hash = Counting()
    for number in range(100_000):
        ghosts.remember(number, 16, 0, purged=True, entries=50_000)
    assert Counting.looks < 100


def test_clear() -> None:
    ghosts = Ghosts()
    ghosts.remember("k", 16, 0, purged=True, entries=0)
    ghosts.clear()
    assert not ghosts.was_purged("k")
