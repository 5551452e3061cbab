"""What the clusters do. Each returns a number that all contenders must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from distributed import Client, wait

MIB = 1 << 20


def rechunk(client: Client, scale: float) -> float:
    """From chunks of rows to chunks of columns, and both are used."""
    import dask
    import dask.array as da

    side = int(6400 * scale**0.5) // 800 * 800
    with dask.config.set({"array.rechunk.method": "tasks"}):
        rows = da.random.default_rng(1).random((side, side), chunks=(400, side)).persist()
        columns = rows.rechunk((side, 800)).persist()
        wait(columns)
        return float((rows.mean() + columns.mean()).compute())


def shuffle_join(client: Client, scale: float) -> float:
    """Two tables with another order of the keys, joined by a shuffle of tasks, twice."""
    import dask
    import dask.dataframe as dd

    keys = int(2_400_000 * scale)
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        left = dd.from_map(_table, range(12), keys=keys, seed=1).persist()
        right = dd.from_map(_table, range(12), keys=keys, seed=2).persist()
        joined = left.merge(right, on="key").persist()
        wait(joined)
        return float((joined.a_x * joined.a_y).sum().compute() + left.a.sum().compute())


def _table(part: int, keys: int, seed: int) -> Any:
    import pandas as pd

    order = np.random.default_rng(seed).permutation(keys)
    mine = order[part * keys // 12 : (part + 1) * keys // 12]
    return pd.DataFrame({"key": mine, **dict.fromkeys("abcd", mine * (seed / 10))})


def climatology(client: Client, scale: float) -> float:
    """Years of days on a grid: the mean year, then how far each day is from it."""
    import dask.array as da

    longitudes = int(360 * scale)
    days = da.random.default_rng(2).random((1460, 120, longitudes), chunks=(73, 120, longitudes))
    days = days.persist()
    years = days.reshape((4, 365, 120, longitudes))
    mean_year = years.mean(axis=0).persist()
    wait(mean_year)
    anomalies = years - mean_year
    return float(anomalies.std().compute() + abs(anomalies).max().compute())


def hot_inputs(client: Client, scale: float) -> float:
    """Tasks come again and again for the same inputs."""
    inputs = client.map(_input, range(int(60 * scale)))
    wait(inputs)
    found = 0.0
    for turn in range(6):
        found += sum(client.gather(client.map(_use, inputs, [turn] * len(inputs), pure=False)))
    return found


def _input(n: int) -> np.ndarray:
    return np.random.default_rng(n).random(2 * MIB)  # 16 MiB


def _use(values: np.ndarray, turn: int) -> float:
    return float(values[turn::8].mean())


WORKLOADS: dict[str, Callable[[Client, float], float]] = {
    "hot inputs": hot_inputs,
    "shuffle join": shuffle_join,
    "climatology": climatology,
    "rechunk": rechunk,
}
