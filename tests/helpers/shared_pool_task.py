"""A function that the workers of a pool import."""

from __future__ import annotations

import os

import vrange


@vrange.cached(shared=True)
def double(n: int) -> int:
    with open(os.environ["COMPUTED"], "a") as log:
        log.write(f"{n}\n")
    return n * 2
