"""A function that calls itself through its cache gets as deep as with functools.cache."""

from __future__ import annotations

import subprocess
import sys

import pytest

DECORATORS = """
import functools, resource, sys, vrange

decorate = {
    "functools": functools.cache,
    "cached": vrange.cached,
    "ttl": vrange.cached(ttl=60),
    "typed": vrange.cached(typed=True),
}
"""

DEEP = (
    DECORATORS
    + """
@decorate[sys.argv[1]]
def count(n):
    if n == 0:
        print(*(stack.high_water_bytes for stack in vrange.stack_info().stacks))
        return 0
    return 1 + count(n - 1)

for levels in map(int, sys.argv[2:]):
    assert vrange.deep_call(count, levels, stack="1GiB") == levels
    assert count(levels // 2) == levels // 2  # it is cached
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    count.cache_clear()
"""
)

LIMITED = (
    DECORATORS
    + """
def reaches(kind, levels):
    @decorate[kind]
    def count(n):
        return 0 if n == 0 else 1 + count(n - 1)
    try:
        return count(levels) == levels
    except RecursionError:
        return False

sys.setrecursionlimit(2000)
deepest = max(levels for levels in range(100, 2100, 50) if reaches("functools", levels))
for kind in decorate:
    assert reaches(kind, deepest), kind
    assert not reaches(kind, 20_000), kind
    assert reaches(kind, deepest), kind  # nothing is left of what failed
"""
)


def run(*args: object) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [int(word) for word in done.stdout.split()]


def test_a_level_takes_no_more_stack_than_with_functools_cache() -> None:
    theirs, _ = run(DEEP, "functools", 20_000)
    for kind in ("cached", "ttl", "typed"):
        ours, _ = run(DEEP, kind, 20_000)
        assert 0 < ours <= theirs, kind


def test_the_limit_of_recursion_is_reached_no_earlier() -> None:
    run(LIMITED)


@pytest.mark.parametrize("kind", ["cached", "ttl"])
def test_memory_grows_with_the_levels(kind: str) -> None:
    # Quadratic memory would take gigabytes for the second.
    _, first_kib, _, second_kib = run(DEEP, kind, 10_000, 100_000)
    assert second_kib - first_kib < 20 * (first_kib - 10_000)
