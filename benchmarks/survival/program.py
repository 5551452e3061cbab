"""The program in the cgroup: fills its cache until the limit is reached, and then takes memory.

It writes a line before each burst, with all figures that the judge needs, and one after it. A
program that is killed has written all lines but the last.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks import contender
from benchmarks.survival import bursts, cgroup, contents, forked
from benchmarks.survival.caches import Contender

FULL_SHARE = 0.97  # from there on the limit counts as reached
FULL_TIMES = 1.3  # so much is stored in a cache that keeps below the limit by itself
LOWERED_SECONDS = 60
BUSY_SECONDS = 0.1
SHARED_SHARE = 0.3  # of the limit


class Program:
    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        self.figures = cgroup.Figures(task["directory"], task["version"])
        self.limit = self.figures.limit()
        compute = contents.maker(task["value_kib"] << 10)
        self.cache = Contender(task["contender"], compute, self.figures.usage_path, self.limit)
        self.requests = contents.Requests(task["seed"])
        self.pinned: list[Any] = []
        self.wrong = 0
        self._lock = threading.Lock()

    def serve(self) -> None:
        with self._lock:
            key = self.requests.next()
        if not contents.is_good(key, self.cache.get(key)):
            self.wrong += 1

    def fill(self) -> None:
        """Serve until the limit is reached, or was not though more has been stored than fits."""
        most = int(FULL_TIMES * self.limit / self.cache.value_bytes)
        look = max(1, (1 << 20) // self.cache.value_bytes)
        for number in range(2 * most):  # half of the requests are for new keys
            self.serve()
            if number % look == 0 and self.figures.usage() >= FULL_SHARE * self.limit:
                break
        for _ in range(most // 8):  # and goes on for a while at the limit
            self.serve()

    def state(self) -> dict[str, int]:
        held = self.cache.held()
        takeable = self.figures.takeable(held["offered"])
        return {"usage": self.figures.usage(), "takeable": takeable, **held}

    def tell_burst(self, number: int, state: dict[str, int]) -> int:
        """Draw the size from what is possible now, write it down, and return it.

        Where nothing is possible, because a child shares too much, it is 0 and no burst counts.
        """
        state["shared"] = cgroup.shared_bytes()
        usage = state["usage"] + state["shared"]  # each write to these pages makes a copy
        fits = cgroup.possible(self.limit, usage, state["idle"], state["takeable"])
        size = max(0, int(self.task["shares"][number] * fits))
        if size:
            contender.tell("burst", number=number, bytes=size, possible=fits, **state)
        return size

    def burst(self, number: int, act: Callable[[int], Any]) -> None:
        """One burst; `act` gets its size and returns what holds the memory."""
        time.sleep(self.task["rest_ms"] / 1e3)
        size = self.tell_burst(number, self.state())
        if not size:
            return
        if self.task["shape"] == "4 busy loops":
            time.sleep(BUSY_SECONDS)  # the parent has let them go on by then
        with ExitStack() as beside:
            if self.task["serves_meanwhile"]:
                beside.enter_context(bursts.serving(self.serve))
            if self.task["shape"] == "page cache":
                beside.enter_context(bursts.files(self.task["file"], self.task["writes_files"]))
            held = act(size)
        del held
        contender.tell("survived", number=number, wrong=self.wrong)

    def wait_for_lowering(self, size: int) -> None:
        """Serve while the parent lowers the limit by `size`, until it has raised it again."""
        end = time.monotonic() + LOWERED_SECONDS
        contender.tell("lower", bytes=size)
        while self.figures.limit() == self.limit and time.monotonic() < end:
            self.serve()
        while self.figures.limit() != self.limit and time.monotonic() < end:
            self.serve()

    def hold_for_child(self) -> list[Any]:
        """Hold values whose pages a child will share until it ends, or until they are replaced."""
        count = int(SHARED_SHARE * self.limit / self.cache.value_bytes)
        return [self.cache.get(self.requests.next()) for _ in range(count)]

    def run(self) -> None:
        shape = self.task["shape"]
        other = bursts.OtherProcess() if shape == "other process" else None
        sleeper = 0
        self.fill()
        self.pinned = [self.cache.get(self.requests.next()) for _ in range(self.task["holds"])]
        if shape in ("sleeping child", "sharing child"):
            held = self.hold_for_child() if shape == "sharing child" else []
            sleeper = os.fork()
            if sleeper == 0:
                bursts.end_with_parent()
                signal.pause()
            held.clear()
        contender.tell("filled")
        simple = bursts.SHAPES.get(shape, bursts.one_step)
        for number in range(len(self.task["shares"])):
            if number:
                self.fill()
            if shape == "lowered limit":
                self.burst(number, self.wait_for_lowering)
            elif other:
                self.burst(number, other.take)
            else:
                self.burst(number, lambda size: simple(size, self.task["huge_pages"], self.serve))
        if other:
            other.end()
        if sleeper:
            os.kill(sleeper, signal.SIGKILL)
            os.waitpid(sleeper, 0)


def main() -> None:
    program = Program(contender.task())
    if program.task["shape"] == "prefork of 4":
        forked.run(program)
    else:
        program.run()
    sys.stdout.flush()
    os._exit(0)  # what is held at the end need not be freed one by one


if __name__ == "__main__":
    main()
