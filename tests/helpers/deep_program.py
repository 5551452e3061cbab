"""A program of ordinary libraries that recurse, run by the tests of `vrange run --deep`."""

from __future__ import annotations

import ast
import copy
import functools
import json
import os
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

LEVELS = int(os.environ.get("LEVELS", "20000"))
USUAL_LEVELS = 900


def usual(n: int) -> int:
    """Recursion as any interpreter allows it."""
    return 0 if n == 0 else 1 + usual(n - 1)


def recurse(n: int) -> int:
    """Recursion in pure Python, in json, pickle, deepcopy and a memoised function, `n` levels."""

    @functools.cache
    def steps(n: int) -> int:
        return 0 if n == 0 else 1 + steps(n - 1)

    assert usual(n) == n
    assert steps(n) == n
    nested = json.loads("[" * n + "]" * n)
    assert len(json.dumps(nested)) == 2 * n
    assert len(pickle.dumps(nested)) > n
    assert depth_of(copy.deepcopy(nested)) == n
    return os.getpid()


def depth_of(nested: list[Any]) -> int:
    depth = 1
    while nested:
        nested = nested[0]
        depth += 1
    return depth


class Counter(ast.NodeVisitor):
    """Counts the additions of a generated expression."""

    def __init__(self) -> None:
        self.additions = 0

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.additions += 1
        self.generic_visit(node)


def sum_of(terms: int) -> ast.expr:
    """Return the expression 1 + 1 + … as a parser would, if it had no limit of its own."""
    node: ast.expr = ast.Constant(1)
    for _ in range(terms):
        node = ast.BinOp(node, ast.Add(), ast.Constant(1))
    return node


def visit(terms: int) -> int:
    """Walk through generated code with an ast visitor."""
    counter = Counter()
    counter.visit(sum_of(terms))
    return counter.additions


def is_refused(f: Callable[..., Any], *arguments: Any) -> bool:
    """Whether it ends in RecursionError, after which the program goes on."""
    try:
        f(*arguments)
    except RecursionError:
        return usual(USUAL_LEVELS) == USUAL_LEVELS
    return False


def in_thread(f: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `f` returns in a thread of its own."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(f(*arguments)))
    thread.start()
    thread.join()
    return results[0]


def resident_mib() -> int:
    """Return the resident set in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def print_now(*words: object) -> None:
    """Print where the test reads it at once."""
    print(*words, flush=True)
    sys.stdout.flush()
