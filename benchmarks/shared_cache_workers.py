"""Workers of one service that call a cheap function: with one cache, or with one each.

A cache that processes share must not cost more than it saves where there is little to save. So the
function takes microseconds, and each worker asks for the same keys again and again.
"""

from __future__ import annotations

import functools
import multiprocessing
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import vrange

WORKERS = 4
KEYS = 2000
CACHES = ("vrange, shared", "vrange, one each", "functools.lru_cache, one each")
_SPAWN = multiprocessing.get_context("spawn")


def cheap(number: int) -> bytes:
    """Return 200 bytes, in a few microseconds."""
    return b"".join(bytes([(number + i) & 255]) for i in range(200))


def _decorated(cache: str, name: str) -> Callable[[int], bytes]:
    if cache == "functools.lru_cache, one each":
        return functools.lru_cache(maxsize=None)(cheap)
    if cache == "vrange, shared":
        return vrange.cached(shared=name)(cheap)
    return vrange.cached(cheap)


def _work(pipe: Any, cache: str, name: str, requests: int, seed: int) -> None:
    function = _decorated(cache, name)
    draw = random.Random(seed)
    keys = [min(int(draw.paretovariate(0.8)), KEYS) for _ in range(requests)]
    function(0)
    pipe.send("ready")
    pipe.recv()
    begun = time.process_time()
    for key in keys:
        function(key)
    pipe.send(time.process_time() - begun)
    pipe.recv()  # until then its values can be read


def requests_per_cpu_second(cache: str, requests: int) -> float:
    """Return the requests of all workers for each second of processor time that they took."""
    name = f"bench-{uuid.uuid4().hex[:12]}"
    workers = []
    for seed in range(WORKERS):
        here, there = _SPAWN.Pipe()
        process = _SPAWN.Process(
            target=_work, args=(there, cache, name, requests, seed), daemon=True
        )
        process.start()
        workers.append((here, process))
    for step in ("ready", "times"):
        answers = [here.recv() for here, _ in workers]
        for here, _ in workers:
            here.send("go on")
        if step == "times":
            cpu_seconds = sum(answers)
    for _, process in workers:
        process.join()
    return float(WORKERS * requests / cpu_seconds)
