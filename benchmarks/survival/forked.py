"""The prefork shape: a parent with a cache, and four workers that take memory at the same time."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import contender
from benchmarks.survival import bursts

if TYPE_CHECKING:
    from benchmarks.survival.program import Program

WORKERS = 4
PATIENCE_SECONDS = 120


def run(program: Program) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(WORKERS, timeout=PATIENCE_SECONDS)
    shared = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.int64)
    for _ in range(200):
        program.serve()  # the parent has used its cache before it forks
    workers = []
    for number in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            _work_and_exit(program, number, barrier, shared)
        workers.append(pid)
    _wait_for(workers)


def _wait_for(workers: list[int]) -> None:
    """Wait for the workers; once one is lost, the others would wait for it for ever."""
    while workers:
        pid, status = os.wait()
        workers.remove(pid)
        if status:
            for other in workers:
                os.kill(other, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(status)
            raise SystemExit(f"a worker ended with {code}")


def _work_and_exit(program: Program, number: int, barrier: Any, shared: Any) -> None:
    status = 1
    bursts.end_with_parent()
    try:
        _work(program, number, barrier, shared)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _work(program: Program, number: int, barrier: Any, shared: Any) -> None:
    from benchmarks.survival import contents

    program.requests = contents.Requests(program.task["seed"] * WORKERS + number)
    idle, offered, size = shared[:WORKERS], shared[WORKERS : 2 * WORKERS], shared[2 * WORKERS :]
    for turn in range(len(program.task["shares"])):
        program.fill()
        barrier.wait()
        held = program.cache.held()
        idle[number], offered[number] = held["idle"], held["offered"]
        barrier.wait()
        if number == 0:
            state = {"idle": int(idle.sum()), "offered": int(offered.sum())}
            state["usage"] = program.figures.usage()
            state["takeable"] = program.figures.takeable(state["offered"])
            size[0] = program.tell_burst(turn, state) // WORKERS
        barrier.wait()
        if not size[0]:
            continue
        taken = bursts.take(int(size[0]), program.task["huge_pages"])
        barrier.wait()
        del taken
        if number == 0:
            contender.tell("survived", number=turn, wrong=program.wrong)
        barrier.wait()
