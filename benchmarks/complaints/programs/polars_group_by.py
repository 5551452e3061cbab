"""A LazyFrame is joined and grouped, and its small result kept.

Polars brings an allocator of its own.

https://github.com/pola-rs/polars/issues/23128
"""

import numpy as np
import polars as pl


def work() -> object:
    random = np.random.default_rng(1)
    kept = []
    for rows in (3_000_000, 5_000_000, 2_000_000):
        frame = pl.DataFrame(
            {
                "key": random.integers(0, 100_000, rows),
                "other": random.integers(0, 50, rows),
                "figure": random.random(rows),
            }
        )
        means = frame.lazy().group_by("key", "other").agg(pl.col("figure").mean())
        joined = frame.lazy().join(means, on=("key", "other")).group_by("other")
        kept.append(joined.agg(pl.col("figure_right").sum()).collect().sort("other"))
    return [frame["figure_right"].round(3).to_list() for frame in kept]
