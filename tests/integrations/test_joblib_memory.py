"""joblib.Memory(backend="vrange"): what its tests of memory ask, by kind."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import joblib
import numpy as np
import pytest
from joblib import expires_after

import vrange
import vrange.integrations.joblib

_names = itertools.count()


@pytest.fixture
def memory() -> joblib.Memory:
    return memory_at()


def memory_at(location: str | None = None, **options: Any) -> joblib.Memory:
    location = location or f"memory-{next(_names)}"
    return joblib.Memory(location, backend="vrange", verbose=0, **options)


def counted(memory: joblib.Memory, **options: Any) -> tuple[Any, list[Any]]:
    calls: list[Any] = []

    def square(number: Any, other: int = 1) -> Any:
        calls.append(number)
        return None if number is None else number * number

    return memory.cache(square, **options), calls


def test_results_are_kept_by_their_arguments(memory: joblib.Memory) -> None:
    square, calls = counted(memory)
    array = np.arange(1000.0)
    for _ in range(2):
        assert square(3) == 9
        assert square(3, other=2) == 9
        assert square(None) is None
        np.testing.assert_array_equal(square(array), array * array)
    assert len(calls) == 4
    assert square.check_call_in_cache(3)
    assert not square.check_call_in_cache(4)


def test_ignored_arguments(memory: joblib.Memory) -> None:
    square, calls = counted(memory, ignore=["other"])
    square(3, other=1)
    square(3, other=2)
    assert calls == [3]


def test_clear(memory: joblib.Memory) -> None:
    square, calls = counted(memory)
    square(3)
    square.clear(warn=False)
    square(3)
    memory.clear(warn=False)
    square(3)
    assert calls == [3, 3, 3]


def test_a_lost_result_is_computed_again(memory: joblib.Memory) -> None:
    square, calls = counted(memory)
    big = np.ones(1 << 16)
    square(big)
    memory.store_backend._cache.mapping.discard()
    np.testing.assert_array_equal(square(big), big)
    np.testing.assert_array_equal(square(big), big)
    assert len(calls) == 2 or vrange.capabilities().rung == "eager"


@pytest.mark.filterwarnings("ignore::joblib.memory.JobLibCollisionWarning")
def test_a_changed_function_loses_its_results(memory: joblib.Memory) -> None:
    namespaces = []
    for factor in (2, 3):
        namespace: dict[str, Any] = {"__name__": "changing"}
        exec(f"def f(x):\n    return x * {factor}\n", namespace)
        namespace["f"].__module__ = "changing"
        namespaces.append(namespace["f"])
    first, second = namespaces
    assert [memory.cache(first)(n) for n in (1, 2)] == [2, 4]
    assert [memory.cache(second)(n) for n in (1, 2)] == [3, 6]


def test_what_a_caller_changes_is_its_own(memory: joblib.Memory) -> None:
    square, _ = counted(memory)
    argument = np.ones(1 << 14)
    for _ in range(3):
        got = square(argument)
        assert got.all()
        got[:] = 0


def test_arrays_of_mmap_mode_r_are_not_copied() -> None:
    square, _ = counted(memory_at(mmap_mode="r"))
    argument = np.ones(1 << 14)
    square(argument)
    first, second = square(argument), square(argument)
    assert np.shares_memory(first, second)
    assert not first.flags.writeable


def test_validation(memory: joblib.Memory) -> None:
    seen: list[dict[str, Any]] = []

    def valid(metadata: dict[str, Any]) -> bool:
        seen.append(metadata)
        return len(seen) != 2

    square, calls = counted(memory, cache_validation_callback=valid)
    for _ in range(4):
        assert square(3) == 9
    assert calls == [3, 3]
    assert all({"duration", "input_args", "time"} <= set(metadata) for metadata in seen)
    kept, calls = counted(memory, cache_validation_callback=expires_after(days=1))
    kept(4), kept(4)
    assert calls == [4]


def test_shelving(memory: joblib.Memory) -> None:
    square, _ = counted(memory)
    reference = square.call_and_shelve(3)
    assert reference.get() == 9
    reference.clear()
    with pytest.raises(KeyError):
        reference.get()


def test_a_location_is_one_cache() -> None:
    name = f"memory-{next(_names)}"
    first, calls = counted(memory_at(name))
    first(3)
    second = memory_at(name).cache(first.func)
    assert second(3) == 9
    assert pickle.loads(pickle.dumps(memory_at(name).store_backend))._cache is (
        memory_at(name).store_backend._cache
    )
    assert calls == [3]


def test_what_can_not_be_kept_is_returned(memory: joblib.Memory) -> None:
    def made(number: int) -> Any:
        return lambda: number

    make = memory.cache(made)
    with pytest.warns(vrange.NotKeptWarning):
        assert make(3)() == 3
    assert make(3)() == 3


@pytest.mark.parametrize("options", [{"compress": True}, {"mmap_mode": "r+"}])
def test_files_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="keeps results in memory"):
        memory_at(**options)


def test_options() -> None:
    assert memory_at(
        backend_options={"max_bytes": "1MiB"}
    ).store_backend._cache.info().max_bytes == (1 << 20)
    with pytest.raises(TypeError, match="typo"):
        memory_at(backend_options={"typo": 1})
