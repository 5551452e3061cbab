"""What an object costs, roughly."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from vrange._cache.weigh import weigh


def test_shared_parts_count_once() -> None:
    part = [bytes(10_000)]
    assert weigh([part, part]) < 11_000
    assert weigh([part, [bytes(10_000)]]) > 20_000


def test_cycles_end() -> None:
    loop: list[object] = [bytes(5000)]
    loop.append(loop)
    assert 5000 < weigh(loop) < 6000


def test_modules_and_types_are_everybodys() -> None:
    assert weigh([sys, dict, len, weigh, "x".join]) < 1000
    assert weigh(dict) < 100_000


def test_objects_are_weighed_with_what_they_hold() -> None:
    class Holder:
        def __init__(self) -> None:
            self.data = bytes(50_000)

    assert 50_000 < weigh(Holder()) < 52_000
    assert weigh({"k": (1, [bytes(30_000)])}) > 30_000


def test_arrays_weigh_what_they_own() -> None:
    owner = np.zeros(100_000, np.uint8)
    assert weigh(owner) > 100_000
    assert weigh(owner[:]) < 1000


@pytest.mark.parametrize("count", [900_000, 1_500_000])
def test_large_graphs_are_estimated(count: int) -> None:
    value: list[list[object]] = [[] for _ in range(count)]
    exact = sys.getsizeof(value) + count * sys.getsizeof([])
    assert exact / 2 < weigh(value) < exact * 2.5
