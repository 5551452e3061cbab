"""An Arrow table becomes a DataFrame, is summed up and deleted, as a service does for each request.

https://github.com/apache/arrow/issues/45882
"""

import numpy as np
import pandas as pd
import pyarrow as pa


def work() -> object:
    random = np.random.default_rng(1)
    summaries = []
    for rows in (600_000, 900_000, 400_000):
        names = pa.array([f"name {number % 5000}" for number in range(rows)])
        columns = {f"figure {at}": random.random(rows) for at in range(8)}
        table = pa.table({"name": names, **columns})
        frame = table.to_pandas()
        summaries.append(frame.groupby("name").mean().round(6))
    return pd.concat(summaries)
