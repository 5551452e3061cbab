"""The examples in the documentation do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
from support import succeeds

import vrange

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(vrange.__path__, "vrange.")
    if not module.name.endswith(("__main__", "._native"))
)


# Their examples are of the best rung, whichever one the tests run on.
BEST_RUNG = {"vrange._arrays.array", "vrange._arrays.as_ndarray", "vrange.cli.doctor"}


@pytest.mark.parametrize("name", sorted({"vrange", *MODULES} - BEST_RUNG))
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
    assert module.__doc__, "every module says what it is about"


@pytest.mark.parametrize("name", sorted(BEST_RUNG))
def test_examples_of_the_best_rung(name: str) -> None:
    code = """
    import doctest, importlib, sys, vrange
    print(vrange.capabilities().rung, doctest.testmod(importlib.import_module(sys.argv[1])))
    """
    rung, told = succeeds(code, name, environment={"VRANGE_RUNG": ""}).split(maxsplit=1)
    if rung != "refault":
        pytest.skip(f"this machine is on the rung {rung}")
    assert told.startswith("TestResults(failed=0, attempted=")


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    with_examples = [
        test.name
        for name in ["vrange", *MODULES]
        for test in finder.find(importlib.import_module(name))
        if test.examples
    ]
    assert {
        "vrange._ranges.arena.Arena",
        "vrange._cache.cache.VolatileCache",
        "vrange._cache.cached.cached",
    } <= set(with_examples)


def test_everything_public_is_there_and_documented() -> None:
    assert sorted(vrange.__all__) == list(vrange.__all__)
    for name in vrange.__all__:
        assert getattr(vrange, name).__doc__, name
