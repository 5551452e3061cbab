"""examples/data_job: unchanged under `vrange run`, and small again once it is quiet."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from examples.data_job.measuring import WAYS, Running, started
from support import MIB, wait_until

from vrange.cli.memory_cgroup import MemoryCgroup

QUIET_SECONDS = 45  # until then it must have come down; on an idle machine it takes three


def anonymous_bytes(job: Running) -> int:
    """Its own memory that is resident, as the kernel tells this process."""
    for line in Path(f"/proc/{job.process.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no Anonymous in smaps_rollup")


@pytest.mark.timeout(240)
def test_the_job_finds_the_same_and_comes_down() -> None:
    limit = None if MemoryCgroup.unavailable() else 2048 * MIB
    with ExitStack() as stack:
        jobs = {name: stack.enter_context(started(WAYS[name], limit)) for name in WAYS}
        found = {name: job.told()["found"] for name, job in jobs.items()}
        plain = jobs.pop("python")
        assert found["python"]["flights"] == 336_776
        assert anonymous_bytes(plain) > 300 * MIB, "the job is of a kind that stays big"
        for name, job in jobs.items():
            assert found[name] == found["python"]
            wait_until(
                lambda job=job: anonymous_bytes(job) < 0.6 * anonymous_bytes(plain),
                f"{name} does not come down",
                QUIET_SECONDS,
            )
            assert job.rss_bytes < 0.7 * plain.rss_bytes, "with files, which trims leave alone"
            if limit is not None:
                assert job.usage_bytes < 0.6 * plain.usage_bytes
