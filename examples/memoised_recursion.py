"""A memoised recursion as deep as the data: the edit distance of two texts, as it is defined.

Run it with a length: ``python examples/memoised_recursion.py 1200``. Without the deep call, it ends
in RecursionError after a thousand levels; with ``sys.setrecursionlimit`` alone, it crashes.
"""

from __future__ import annotations

import functools
import sys

import vrange


def steps(count: int) -> int:
    """Return the depth of a chain of `count` memoised calls, which is `count`."""

    @functools.cache
    def chain(n: int) -> int:
        return 0 if n == 0 else 1 + chain(n - 1)

    return chain(count)


@vrange.deep_recursion(stack="4GiB")
def edit_distance(a: str, b: str) -> int:
    """Return how many insertions, deletions and replacements turn `a` into `b`.

    >>> edit_distance("kitten", "sitting")
    3
    """

    @functools.cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        if a[i - 1] == b[j - 1]:
            return distance(i - 1, j - 1)
        return 1 + min(distance(i - 1, j), distance(i, j - 1), distance(i - 1, j - 1))

    return distance(len(a), len(b))


def main() -> None:
    length = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    print(f"{vrange.deep_call(steps, 1_000_000):,} levels of functools.cache")
    text = "the quick brown fox jumps over the lazy dog " * (length // 44 + 1)
    print("edit distance", edit_distance(text[:length], text[7 : length + 7][::-1]))
    info = vrange.stack_info()
    print(f"{info.returned_bytes / 2**20:.0f} MiB of stack returned")


if __name__ == "__main__":
    main()
