"""Workers that use one cache without pause, and are killed at random: nothing wrong, nothing left.

Each key has one process that changes it. It writes down what is true before the change and what
must be found after it. So all others see whether a value is wrong, mixed, or older than a change
that was over before they asked.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import vrange
from benchmarks.service.record import Record
from benchmarks.survival.bursts import end_with_parent

WORKERS, KEYS = 8, 64
SIZES = (10, 3000, 40_000)  # bytes: two kinds of records, and values that stay with their process
EVERY_SECONDS = 0.05
MINUTES, SLICE_SECONDS = 10.0, 60.0
HANG_SECONDS = 20.0  # that a request may take on a busy machine before it counts as hung
SLEEP_SECONDS = 0.0005  # of each worker between requests: the machine is not ours alone
OUTLIVED = 0  # the worker that is never killed: what it has grown by shows a leak
STALE, MIXED, FAILED = range(3)


class Book:
    """What all processes write down: in memory that outlives each of them."""

    def __init__(self) -> None:
        words = np.frombuffer(mmap.mmap(-1, 1 << 16), np.int64)
        self.truth, self.latest = words[:KEYS], words[KEYS : 2 * KEYS]
        self.requests = words[2 * KEYS : 2 * KEYS + WORKERS]
        self.wrong = words[2 * KEYS + WORKERS : 2 * KEYS + WORKERS + 3]


def _made(key: int, turn: int) -> Any:
    nbytes = SIZES[(key + turn) % len(SIZES)]
    return np.full(max(2, nbytes // 8), key << 40 | turn, np.int64)


class Worker:
    """A process that finds, computes, replaces and removes, until it is killed."""

    def __init__(self, book: Book, number: int, name: str) -> None:
        self._book, self._number = book, number
        self._cache = vrange.VolatileCache[int, Any](shared=name)
        self._draw = random.Random(time.time_ns())

    def look(self, key: int) -> None:
        """Ask for a value, and see whether it is whole and new enough."""
        book, least = self._book, int(self._book.latest[key])
        if self._draw.random() < 0.5:
            value = self._cache.get(key)
        else:
            value = self._cache.get_or_compute(key, lambda: _made(key, int(book.truth[key])))
        if value is None:
            return
        if int(value[0]) >> 40 != key or not (value == value[0]).all():
            book.wrong[MIXED] += 1
        elif int(value[0]) & (1 << 40) - 1 < least:
            book.wrong[STALE] += 1

    def change(self, key: int) -> None:
        """Replace a value of this worker's own, or remove it."""
        book, turn = self._book, int(self._book.truth[key]) + 1
        book.truth[key] = turn
        match self._draw.randrange(8):
            case 0:
                self._cache.pop(key, None)
            case 1 if self._draw.random() < 0.02:
                self._cache.clear()
            case _:
                self._cache[key] = _made(key, turn)
        book.latest[key] = turn

    def work(self) -> None:
        own = range(self._number, KEYS, WORKERS)
        while True:
            if self._draw.random() < 0.3:
                self.change(self._draw.choice(own))
            else:
                self.look(self._draw.randrange(KEYS))
            self._book.requests[self._number] += 1
            time.sleep(SLEEP_SECONDS)


def _fork(run: Callable[[], Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        end_with_parent()
        run()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _figures(pid: int) -> tuple[int, int]:
    """Return the descriptors and the resident bytes of a process."""
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * mmap.PAGESIZE
    return len(os.listdir(f"/proc/{pid}/fd")), resident


class Service:
    """The workers, and who kills them."""

    def __init__(self, name: str) -> None:
        self.book, self._name = Book(), name
        self.pids = [self._begin(number) for number in range(WORKERS)]
        self.kills = self.hangs = 0

    def _begin(self, number: int) -> int:
        return _fork(lambda: Worker(self.book, number, self._name).work())

    def _kill(self, number: int) -> None:
        os.kill(self.pids[number], signal.SIGKILL)
        _, status = os.waitpid(self.pids[number], 0)
        if not os.WIFSIGNALED(status):
            self.book.wrong[FAILED] += 1  # it had ended by itself

    def run(self, seconds: float) -> None:
        """Kill a random worker every 50 ms, and begin another one in its place."""
        book, end = self.book, time.monotonic() + seconds
        seen, since = list(book.requests), [time.monotonic()] * WORKERS
        while (now := time.monotonic()) < end:
            victim = random.randrange(OUTLIVED + 1, WORKERS)
            self._kill(victim)
            self.pids[victim] = self._begin(victim)
            self.kills += 1
            for number in range(WORKERS):
                if number == victim or book.requests[number] != seen[number]:
                    seen[number], since[number] = book.requests[number], now
                elif now - since[number] > HANG_SECONDS:
                    self.hangs, since[number] = self.hangs + 1, now
            time.sleep(max(0.0, EVERY_SECONDS - (time.monotonic() - now)))

    def end(self) -> None:
        for number in range(WORKERS):
            self._kill(number)


def _slice(seconds: float) -> dict[str, Any]:
    """Run one service, in this process's own directory of files."""
    warnings.simplefilter("error")  # such as that the cache can't be shared any more
    name = f"bench-{uuid.uuid4().hex[:12]}"
    directory = Path(os.environ["VRANGE_RUNTIME_DIR"])
    service = Service(name)
    time.sleep(min(2.0, seconds / 4))
    before = _figures(service.pids[OUTLIVED])
    service.run(seconds)
    after = _figures(service.pids[OUTLIVED])
    left_before = len(list(directory.iterdir()))
    service.end()
    kept, stored = _room(name)
    files = [path.name for path in directory.iterdir() if path.suffix == ".index"]
    return {
        "seconds": seconds,
        "kills": service.kills,
        "requests": int(service.book.requests.sum()),
        "stale": int(service.book.wrong[STALE]),
        "mixed": int(service.book.wrong[MIXED]),
        "failed": int(service.book.wrong[FAILED]),
        "hangs": service.hangs,
        "descriptors_more": after[0] - before[0],
        "resident_more": after[1] - before[1],
        "files": left_before,
        "indexes_left": len(files),
        "kept_after": kept,
        "kept_of": stored,
    }


def _room(name: str) -> tuple[int, int]:
    """Return how many values of an index's own are found after as many were stored, and how many.

    Had members, blocks or cells been lost, the next process would have room for fewer.
    """
    with vrange.VolatileCache[int, bytes](shared=name) as cache:
        for key in range(2000):
            cache[key] = b"%d" % key * 100
        return sum(key in cache for key in range(2000)), 2000


def run(seconds: float) -> dict[str, Any]:
    """Run a slice in a process of its own, with files of its own."""
    with ExitStack() as stack:
        directory = tempfile.mkdtemp(prefix="vrange-service-", dir="/dev/shm")
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        command = [sys.executable, "-m", "benchmarks.service.kills", str(seconds)]
        done = subprocess.run(
            command,
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "VRANGE_RUNTIME_DIR": directory},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=seconds + 300,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(record: Record, minutes: float) -> None:
    """Run the slices that the record does not have yet."""
    seconds = min(SLICE_SECONDS, minutes * 60)
    for number in range(round(minutes * 60 / seconds)):
        record.once(f"kills {number}", lambda: run(seconds))


if __name__ == "__main__":
    print(json.dumps(_slice(float(sys.argv[1]))))
