"""A DataFrame grows by concatenation in a loop, with a summary of each step.

https://github.com/pandas-dev/pandas/issues/19941
"""

import numpy as np
import pandas as pd


def work() -> object:
    random = np.random.default_rng(1)
    frame = pd.DataFrame()
    summaries = []
    for number in range(60):
        rows = 20_000 + 1000 * (number % 7)
        more = pd.DataFrame(random.random((rows, 5)), columns=list("abcde"))
        more["text"] = [f"{number} {row % 100}" for row in range(rows)]
        frame = pd.concat([frame, more], ignore_index=True)
        summaries.append(frame[list("abcde")].mean().round(6))
    return pd.DataFrame(summaries)
