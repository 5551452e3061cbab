"""What the tests of deep stacks share: recursions, limits looked at, programs run apart."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from vrange._core import deep

MIB = 1 << 20
KEPT = 64 * 1024
R = TypeVar("R")


def cached_steps() -> Callable[[int], int]:
    """A memoised recursion with nothing remembered: two levels of C and one of Python a step."""

    @functools.cache
    def steps(n: int) -> int:
        return 0 if n == 0 else 1 + steps(n - 1)

    return steps


def cached_raiser(f: Callable[[int], R]) -> functools._lru_cache_wrapper[R]:
    """A memoised function that never comes to return anything."""
    return functools.lru_cache(maxsize=None)(f)


def plain_steps(n: int) -> int:
    """Recursion in pure Python, which needs no C stack."""
    return 0 if n == 0 else 1 + plain_steps(n - 1)


def nested_list(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth - 1):
        inner = [inner]
    return inner


def depth_of(nested: list[Any]) -> int:
    depth = 1
    while nested:
        nested = nested[0]
        depth += 1
    return depth


@contextlib.contextmanager
def limits_unchanged() -> Iterator[None]:
    """The thread is on its own stack before and after, with the same limits."""
    before, limit = deep.levels_left(), sys.getrecursionlimit()
    assert deep.here() is None
    yield
    assert deep.here() is None
    assert deep.levels_left() == before
    assert sys.getrecursionlimit() == limit


def resident_bytes() -> int:
    """Resident memory of the process, what it has offered to the kernel left out."""
    sizes = {}
    with open("/proc/self/smaps_rollup") as lines:
        for line in lines:
            field, *rest = line.split()
            if rest and rest[-1] == "kB":
                sizes[field] = int(rest[0]) * 1024
    return sizes["Rss:"] - sizes["LazyFree:"]


def run_apart(
    program: str, *options: str, timeout: float = 100
) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, where it may crash."""
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def output_of(program: str, *options: str, timeout: float = 100) -> str:
    """What a program printed; it must end well."""
    done = run_apart(program, *options, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()
