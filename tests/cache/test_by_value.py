"""Cached functions that another process can't import are pickled with their code."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import vrange
from vrange import cached

SCRIPT = """
import asyncio, sys, cloudpickle, pickle, vrange
from operator import attrgetter

calls = []
step = 1

@vrange.cached(max_entries=500, typed=True)
def fib(n):
    return n if n < 2 else fib(n - step) + fib(n - 2)

@vrange.cached(key=lambda n, *a: n, skip=lambda value: value is None)
async def later(n, *a):
    await asyncio.sleep(0)
    return None if n < 0 else await doubled(n)

@vrange.cached(ignore="log")
async def doubled(n, log=None):
    return 2 * n

class Client:
    def __init__(self):
        self.cache = None
    @vrange.cached
    def get(self, n):
        return fib(n) + 1
    @vrange.cached(cache=attrgetter("own"))
    def mine(self, n):
        return n
    @vrange.cached
    @classmethod
    def make(cls, n):
        return cls.__name__ * n

fib.mark = "kept"
assert pickle.loads(pickle.dumps(fib)) is fib  # by name, as always
with open(sys.argv[1], "wb") as file:
    cloudpickle.dump({"fib": fib, "later": later, "Client": Client, "method": Client().get}, file)
    again = cloudpickle.dumps(fib)
assert fib(30) == cloudpickle.loads(again)(30) == 832040
assert cloudpickle.loads(again).cache is fib.cache  # in one process it is one cache
with open(sys.argv[1] + ".again", "wb") as file:
    file.write(again)
"""

WORKER = """
import asyncio, pickle, sys, vrange
with open(sys.argv[1], "rb") as file:
    got = pickle.load(file)
fib = got["fib"]
assert fib(60) == 1548008755920 and fib.cache_info().misses == 61
assert fib.__wrapped__.__globals__["fib"] is fib
assert fib.cache_parameters()["max_entries"] == 500 and fib.cache_parameters()["typed"] is True
assert fib.cache.name == "__main__.fib" and fib.mark == "kept" and fib.__name__ == "fib"
assert fib.cache_contains(60) and fib.cache_discard(60) and isinstance(fib, vrange.CachedFunction)
async def main():
    assert [await got["later"](n) for n in (3, 3, -1, -1)] == [6, 6, None, None]
asyncio.run(main())
assert got["later"].cache_info().entries == 1
client = got["Client"]()
assert client.get(5) == client.get(5) == 6 and client.get.cache_contains(5)
client.own = vrange.VolatileCache(name="own")
assert client.mine(3) == 3 and len(client.own) == 1
assert got["Client"].make(2) == "ClientClient"
assert got["method"](6) == 9

# The next task brings the function again: it has the same cache here.
with open(sys.argv[1] + ".again", "rb") as file:
    again = pickle.load(file)
assert again is not fib and again.cache is fib.cache
assert again.cache_contains(59)
import gc
del fib, got
gc.collect()
with open(sys.argv[1] + ".again", "rb") as file:
    assert pickle.load(file).cache_contains(59)
"""


@cached
def at_module_level(n: int) -> int:
    return n


def run(code: str, *arguments: object, cwd: Path) -> None:
    script = cwd / "script.py"
    script.write_text(textwrap.dedent(code))
    child = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert child.returncode == 0, child.stderr


def test_functions_of_main_reach_a_worker_that_can_not_import_them(tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    run(SCRIPT, pickled, cwd=tmp_path)
    run(WORKER, pickled, cwd=tmp_path)


def test_what_can_be_imported_goes_by_name() -> None:
    assert cloudpickle.loads(cloudpickle.dumps(at_module_level)) is at_module_level
    assert len(cloudpickle.dumps(at_module_level)) < 200


def test_a_module_that_is_registered_goes_by_value() -> None:
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        loaded = cloudpickle.loads(cloudpickle.dumps(at_module_level))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert loaded is not at_module_level
    assert loaded(3) == 3
    assert loaded.cache is at_module_level.cache


def test_local_functions() -> None:
    offset = 5

    @cached
    def local(n: int) -> int:
        return n + offset

    @cached
    async def later(n: int) -> int:
        return n + offset

    loaded: Any = cloudpickle.loads(cloudpickle.dumps([local, later]))
    assert (loaded[0](1), asyncio.run(loaded[1](1))) == (6, 6)
    with pytest.raises((AttributeError, pickle.PicklingError), match="local"):
        pickle.dumps(local)


def test_a_function_on_a_cache_that_exists_names_it_where_it_can_not_go() -> None:
    with vrange.VolatileCache[Any, Any](name="of many") as cache:
        local = cached(cache=cache)(lambda n: n)
        with pytest.raises(TypeError, match="VolatileCache 'of many' can't be pickled"):
            cloudpickle.dumps(local)
