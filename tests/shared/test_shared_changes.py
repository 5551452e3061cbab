"""A statement that changes an answer works at the first call and later, or is refused each time.

Where the answer comes from makes no difference: the function, this process, another process, or a
lower tier. No change reaches another caller.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from shared_peers import READS_LARGE, Peer

import vrange

ROWS = 3000


class Model:
    """Has arrays of its own."""

    def __init__(self) -> None:
        self.weights = np.zeros((30, 100), order="F")


def frame() -> pd.DataFrame:
    return pd.DataFrame(np.zeros((ROWS, 2)), columns=["x", "y"])


def to_frame(value: Any) -> None:
    value.loc[0, "x"] = 3.0
    value.fillna(0, inplace=True)


def to_first(value: Any) -> None:
    value.iloc[0] = value.iloc[1]
    value.iloc[-1] = value.iloc[1]


def to_matrix(value: Any) -> None:
    value *= 2
    value.sort_indices()


def to_model(value: Any) -> None:
    value["model"].weights += 1


def to_array(value: Any) -> None:
    value[0] = 1


def to_item(value: Any) -> None:
    value["w"] += 1


def total(value: Any) -> float:
    """Return what changes of any of these values change."""
    if isinstance(value, dict):
        return sum(map(total, value.values()))
    if isinstance(value, Model):
        return total(value.weights)
    if isinstance(value, pd.DataFrame):
        return float(value.to_numpy().sum())
    if isinstance(value, pd.Series):
        return float((value.astype(str) == "1").sum())
    if isinstance(value, bytearray):
        return sum(value)
    return float(value.sum())


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "frame": (frame, to_frame),
    "frame in a dict": (lambda: {"d": frame()}, lambda value: to_frame(value["d"])),
    "series": (lambda: pd.Series([0, 1] * ROWS), to_first),
    "nullable": (lambda: pd.Series(pd.array([0, 1] * ROWS, dtype="Int64")), to_first),
    "categorical": (lambda: pd.Series(pd.Categorical(["0", "1"] * ROWS)), to_first),
    "sparse matrix": (lambda: sp.random(300, 300, 0.1, "csr", random_state=1), to_matrix),
    "object's array": (lambda: {"model": Model()}, to_model),
    "array": (lambda: np.zeros(ROWS), to_array),
    "array with gaps": (lambda: np.zeros(ROWS)[::2], to_array),
    "small array": (lambda: np.zeros(3), to_array),
    "array in a dict": (lambda: {"w": np.zeros(ROWS)}, to_item),
    "masked array": (lambda: np.ma.masked_array(np.zeros(ROWS), np.zeros(ROWS, bool)), to_array),
    "bytearray": (lambda: bytearray(ROWS), to_array),
}


def outcome(value: Any, change: Callable[[Any], None]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas deprecates changes in place
        try:
            change(value)
        except ValueError as error:
            return str(error)
    return "changed"


def change_there(cache: Any, what: str, before: float) -> str:
    """Change an answer in another process."""
    make, change = CHANGES[what]
    value = cache.get_or_compute("key", make)
    assert total(value) == before
    return outcome(value, change)


@pytest.mark.parametrize("what", CHANGES)
def test_an_answer_can_be_changed_wherever_it_is_from(what: str, name: str, peer: Peer) -> None:
    make, change = CHANGES[what]
    before = total(make())
    with vrange.VolatileCache[str, Any](shared=name) as cache:
        cache.clear()
        outcomes = [outcome(cache.get_or_compute("key", make), change)]
        if READS_LARGE or what.startswith("small"):
            outcomes += [peer.ask(change_there, what, total(cache["key"])) for _ in range(4)]
        for _ in range(3):
            value = cache["key"]
            assert total(value) == before, "a change reached another caller"
            outcomes.append(outcome(value, change))
    assert len(set(outcomes)) == 1, outcomes


@pytest.fixture(scope="module")
def name() -> str:
    return "changes"


@pytest.fixture(scope="module")
def peer(name: str) -> Any:
    peer = Peer(name)
    yield peer
    peer.end()


@pytest.mark.parametrize("shared", [False, "changes below"])
@pytest.mark.parametrize("what", CHANGES)
def test_an_answer_from_a_lower_tier_can_be_changed(
    what: str, shared: str | bool, tmp_path: Path
) -> None:
    make, change = CHANGES[what]
    before = total(make())
    outcomes = []
    for _ in range(2):  # the second is as one of a later process
        with vrange.VolatileCache[str, Any](
            shared=shared, name="changes", below=str(tmp_path)
        ) as cache:
            for _ in range(3):
                value = cache.get_or_compute("key", make)
                assert total(value) == before, "a change reached another caller"
                outcomes.append(outcome(value, change))
                assert cache.flush()
            assert cache.info().below_errors == 0
    assert len(set(outcomes)) == 1, outcomes
