"""Running what is compared alternately, so that a noisy machine is noisy to both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import TypeVar

T = TypeVar("T")


def interleaved(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """A B C, C B A, A B C …: one list of `rounds` results per contender.

    The order turns round each time: whoever is always second finds the machine as the first left
    it.
    """
    results: dict[str, list[T]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            results[name].append(contenders[name]())
    return results


def paired_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' ratios: what a disturbance of one round moves least."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))
