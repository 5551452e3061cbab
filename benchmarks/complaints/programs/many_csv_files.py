"""Many CSV files are read one after another, and a few rows of each are kept.

https://github.com/pandas-dev/pandas/issues/21353, https://github.com/pandas-dev/pandas/issues/51667
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd


def work() -> object:
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as directory:
        for number in range(4):
            rows = 40_000 + 20_000 * number
            frame = pd.DataFrame(random.random((rows, 6)).round(5), columns=list("abcdef"))
            frame["text"] = [f"row {row % 997} of file {number}" for row in range(rows)]
            frame.to_csv(Path(directory, f"{number}.csv"), index=False)
        kept = []
        for turn in range(12):
            frame = pd.read_csv(Path(directory, f"{turn % 4}.csv"))
            kept.append(frame[frame["a"] > 0.9995].copy())
    return pd.concat(kept)
