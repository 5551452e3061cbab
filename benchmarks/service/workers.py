"""The program in the cgroup: workers that were forked by a master, as a prefork server's are.

The master holds no value. It asks the workers for steps by their pipes, and writes a line after
each.
"""

from __future__ import annotations

import functools
import mmap
import multiprocessing
import os
import random
import threading
import time
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import vrange
from benchmarks import contender
from benchmarks.survival.bursts import end_with_parent

SHARED, EACH, LRU = "vrange, shared", "vrange, one each", "functools.lru_cache, one each"
SKEW = 0.8  # requests are for key k in proportion to k ** -SKEW
PAGE_WORDS = mmap.PAGESIZE // 8
FILLED_BY = 1.5  # times as many requests as there are values, before anything is measured
SERVED_BETWEEN = 0.25  # of that, between two bursts


def made(key: int, nbytes: int) -> Any:
    """Compute a value: decompress a picture of `nbytes`, all words of which say the key."""
    words = np.frombuffer(zlib.decompress(_compressed(nbytes)), np.uint64).copy()
    words += np.uint64(key)
    return words


@functools.cache
def _compressed(nbytes: int) -> bytes:
    draw = np.random.default_rng(1)
    words = np.zeros(nbytes // 8, np.uint64)
    words[1::2] = draw.integers(0, 1 << 62, len(words[1::2]), np.uint64)
    words[::PAGE_WORDS] = 0
    words[-1] = 0
    return zlib.compress(words.tobytes(), 1)


def is_right(key: int, value: Any) -> bool:
    """Look at a word of each page, and at the last one."""
    return bool((value[::PAGE_WORDS] == key).all()) and int(value[-1]) == key


class Cache:
    """A cache of one of the kinds. The master makes it before it forks, as a global of a module."""

    def __init__(self, kind: str, name: str, nbytes: int) -> None:
        self.computed, self._nbytes = 0, nbytes
        self.get: Callable[[int], Any]
        if kind == LRU:
            self.get = functools.lru_cache(maxsize=None)(self._compute)
            return
        self._values = vrange.VolatileCache[int, Any](
            name="service", shared=name if kind == SHARED else False
        )
        self.get = self._get_or_compute

    def _compute(self, key: int) -> Any:
        self.computed += 1
        return made(key, self._nbytes)

    def _get_or_compute(self, key: int) -> Any:
        return self._values.get_or_compute(key, functools.partial(self._compute, key))


class Worker:
    """One process of the service. Its methods are the steps that the master asks for."""

    def __init__(self, number: int, task: dict[str, Any], cache: Cache) -> None:
        self._task, self._cache = task, cache
        draw = random.Random(number)
        weights = [rank**-SKEW for rank in range(1, task["values"] + 1)]
        count = int(FILLED_BY * task["values"]) + task["requests"]
        self._keys = draw.choices(range(task["values"]), weights, k=count)
        self._at = 0
        self._number = number

    def begin(self) -> dict[str, Any]:
        """Start the threads that a cache needs."""
        self._cache.get(0)
        return {}

    def store_part(self) -> dict[str, Any]:
        """Ask for this worker's part of all values."""
        for key in range(self._number, self._task["values"], self._task["workers"]):
            self._cache.get(key)
        return {}

    def serve(self, count: int) -> dict[str, Any]:
        """Serve `count` requests."""
        before, wrong, begun = self._cache.computed, 0, time.process_time()
        for _ in range(count):
            key = self._keys[self._at % len(self._keys)]
            self._at += 1
            wrong += not is_right(key, self._cache.get(key))
        return {
            "requests": count,
            "computed": self._cache.computed - before,
            "wrong": wrong,
            "cpu_seconds": time.process_time() - begun,
        }

    def burst(self, nbytes: int) -> dict[str, Any]:
        """Take memory, write to each of its pages, and give it back; serve meanwhile."""
        serving = threading.Thread(target=self.serve, args=(50,))
        serving.start()
        with mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as piece:
            for at in range(0, nbytes, mmap.PAGESIZE):
                piece[at] = 1
        serving.join()
        return {"wrong": 0}


def _obey(pipe: Connection, number: int, task: dict[str, Any], cache: Cache) -> None:
    end_with_parent()
    worker = Worker(number, task, cache)
    while True:
        step, *given = pipe.recv()
        pipe.send(getattr(worker, step)(*given))


class Master:
    """Forks the workers, and asks them."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._pipes: list[Connection] = []
        context = multiprocessing.get_context("fork")
        cache = Cache(task["cache"], task["name"], task["value_kib"] << 10)
        for number in range(task["workers"]):
            here, there = context.Pipe()
            context.Process(target=_obey, args=(there, number, task, cache), daemon=True).start()
            there.close()
            self._pipes.append(here)

    def ask(self, step: str, *given: Any) -> list[dict[str, Any]]:
        """Have all workers do a step at the same time."""
        return self.ask_each([(step, *given)] * len(self._pipes))

    def ask_each(self, steps: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
        """Have each worker do its step. A worker that was killed ends the program."""
        for pipe, step in zip(self._pipes, steps, strict=True):
            pipe.send(step)
        return [pipe.recv() for pipe in self._pipes]


class Memory:
    """What the cgroup's processes use, without files that the kernel keeps in memory."""

    def __init__(self, directory: str, version: str) -> None:
        self._stat = Path(directory, "memory.stat")
        self._names = ("total_rss", "total_shmem") if version == "cgroup v1" else ("anon", "shmem")

    def used(self) -> int:
        counts = dict(line.split() for line in self._stat.read_text().splitlines())
        return sum(int(counts.get(name, 0)) for name in self._names)


def summed(answers: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: sum(answer[name] for answer in answers) for name in answers[0]}


def main() -> None:
    task = contender.task()
    memory = Memory(task["directory"], task["version"])
    _compressed(task["value_kib"] << 10)
    made(0, task["value_kib"] << 10)
    master = Master(task)
    master.ask("begin")
    contender.tell("begun", used=memory.used())
    master.ask("store_part")
    fill = int(FILLED_BY * task["values"])
    master.ask("serve", fill // task["workers"])
    most = task["requests"]
    served = summed(master.ask("serve", most // task["workers"]))
    contender.tell("served", used=memory.used(), **served)
    draw = random.Random(task["seed"])
    for number in range(task["bursts"]):
        contender.tell("burst", number=number, used=memory.used())
        bursting = draw.randrange(task["workers"])
        between = ("serve", int(SERVED_BETWEEN * fill) // task["workers"])
        steps: list[tuple[Any, ...]] = [between] * task["workers"]
        steps[bursting] = ("burst", task["burst_mib"] << 20)
        wrong = sum(answer["wrong"] for answer in master.ask_each(steps))
        wrong += sum(answer["wrong"] for answer in master.ask(*between))
        contender.tell("survived", number=number, wrong=wrong)
    os._exit(0)


if __name__ == "__main__":
    main()
