"""A convolution on batches whose size changes with each step; torch's CPU tensors in the report.

Here it is NumPy's, in the same steps: windows are gathered into one matrix, which is multiplied.
https://github.com/pytorch/pytorch/issues/32596, https://github.com/pytorch/pytorch/issues/27971
"""

import random

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def work() -> object:
    random.seed(1)
    weights = np.random.default_rng(1).random((3 * 5 * 5, 16), dtype=np.float32)
    scores = []
    for _ in range(25):
        batch = random.randint(2, 24)
        images = np.full((batch, 3, 112, 112), 0.5, dtype=np.float32)
        windows = sliding_window_view(images, (5, 5), axis=(2, 3))
        columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 75)
        activations = np.maximum(columns @ weights - 18.0, 0.0)
        scores.append((batch, bool(activations.mean() >= 0.0)))
    return scores
