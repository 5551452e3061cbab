"""Bursts at a full limit, on every rung: what is possible without a kill ends without one.

The cases are those of benchmarks/survival that were once lost: many small ranges and threads that
run instead of the reserve's, and a limit that is lowered while nothing can be reclaimed.
"""

from __future__ import annotations

import pytest
from benchmarks.survival import matrix, runner, tables
from benchmarks.survival.matrix import Case

from vrange.cli.memory_cgroup import MemoryCgroup

pytestmark = [pytest.mark.memory_cgroup, pytest.mark.timeout(300)]

CASES = [Case(256, "12 threads", 1002), Case(128, "lowered limit", 2020)]


RUNS_MOST = 3


@pytest.mark.parametrize("rung", matrix.RUNGS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.shape)
def test_a_burst_that_is_possible_kills_nobody(case: Case, rung: str) -> None:
    if refusal := MemoryCgroup.unavailable():
        pytest.skip(reason=f"no memory cgroup can be made: {refusal}")
    runs = [runner.run(case, rung, None)]
    # On a busy machine one run in six may be lost (eager; docs/survival.md), though half of them
    # once were.
    while tables.counted(runs[-1:])[1] and len(runs) < RUNS_MOST:
        runs.append(runner.run(case, rung, None))
    about = {"case": case.key, "contender": rung}
    described = "\n".join(tables.description(about | run) for run in runs)
    assert not any(run["error"] for run in runs), described
    assert tables.counted(runs[-1:]) == (matrix.BURSTS, 0), described
    assert not any(run.get("wrong") for run in runs), described
