"""Runs one program in a cgroup of its own, and judges how each of its bursts ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks import contender
from benchmarks.contender import Outcome
from benchmarks.survival import bursts, matrix
from benchmarks.survival.kernel_log import KernelLog
from benchmarks.survival.matrix import Case
from vrange._counters.own_file import FileRefusedError
from vrange._counters.segment import read
from vrange.cli.memory_cgroup import MemoryCgroup

MIB = 1 << 20
TIMEOUT = 240
BUSY_LOOPS = 4
_REFUSED_TRIES = 20

Run = dict[str, Any]


def run(case: Case, name: str, before: str | None) -> Run:
    """Run a case for one contender.

    `before` is the directory `runtime` of another built tree, for contenders named "…, before".
    """
    limit = case.limit_mib * MIB
    directory = Path(tempfile.mkdtemp(prefix="survival-"))
    environment = {"VRANGE_RUNTIME_DIR": str(directory / "segments")}
    (directory / "segments").mkdir(mode=0o700)
    rung, _, which = name.partition(", ")
    if rung in matrix.RUNGS:
        environment["VRANGE_RUNG"] = rung
        if which and before:
            environment["PYTHONPATH"] = before
    log = KernelLog()
    started = time.monotonic()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.callback(log.close)
        group = stack.enter_context(MemoryCgroup(limit, name="vrange-survival"))
        stack.callback(_end_all, group)
        loops = stack.enter_context(_busy_loops()) if case.shape == "4 busy loops" else []
        task = case.task() | {
            "contender": name,
            "directory": group.path,
            "version": group.version,
            "file": bursts.sparse_file(directory, limit),
        }

        def obey(line: dict[str, Any]) -> None:
            if line["kind"] in ("burst", "survived"):
                for loop in loops:
                    loop.send_signal(signal.SIGCONT if line["kind"] == "burst" else signal.SIGSTOP)
            elif line["kind"] == "lower":
                _lower(group, limit, limit - line["bytes"], task)

        try:
            outcome = contender.run(
                "benchmarks.survival.program",
                task,
                on_line=obey,
                timeout=TIMEOUT,
                group=group,
                environment=environment,
            )
        except RuntimeError as error:
            return {"bursts": [], "error": str(error)[-2000:], "oom_kills": 0, "exit_status": 1}
        found = judged(outcome)
        found["seconds"] = round(time.monotonic() - started, 2)
        if outcome.oom_kills:
            time.sleep(0.05)  # the kernel writes its line after the process is gone
            found["kernel"] = log.about(Path(group.path).name)
        if not all(burst["survived"] for burst in found["bursts"]):
            found["reserve"] = _last_counts(directory / "segments")
    return found


def judged(outcome: Outcome) -> Run:
    """Return the run's bursts, each with whether it was survived.

    A kill counts for the burst that was announced last. A kill before the first burst or between
    two is one of a burst of 0 bytes: the program only used its cache.
    """
    survived = {line["number"] for line in outcome.told("survived")}
    wrong = max((line["wrong"] for line in outcome.told("survived")), default=0)
    tried = [
        {key: value for key, value in line.items() if key != "kind"}
        | {"survived": line["number"] in survived}
        for line in outcome.told("burst")
    ]
    lost = outcome.exit_status != 0 or outcome.oom_kills > 0
    if lost and all(burst["survived"] for burst in tried):
        tried.append({"number": len(tried), "bytes": 0, "possible": 0, "survived": False})
    return {
        "bursts": tried,
        "wrong": wrong,
        "exit_status": outcome.exit_status,
        "oom_kills": outcome.oom_kills,
        "error": outcome.stderr[-2000:] if lost and not outcome.oom_kills else "",
    }


def _lower(group: MemoryCgroup, limit: int, target: int, task: dict[str, Any]) -> None:
    """Lower the limit in steps, and raise it again. v1 refuses what it can't reclaim at once."""
    now, refused = limit, 0
    while now > target and refused < _REFUSED_TRIES:
        step = max(target, int(now * (1 - task["lower_by"])))
        try:
            group.limit_bytes = step
            now, refused = step, 0
        except OSError:
            refused += 1
        time.sleep(task["lower_every_ms"] / 1e3)
    time.sleep(0.1)
    with suppress(OSError):
        group.limit_bytes = now - 4096 if now == limit else now  # the program sees that it is over
    time.sleep(0.02)
    group.limit_bytes = limit


@contextmanager
def _busy_loops() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Yield processes that compute when they are let go on: the cache is filled without them."""
    loops = [
        subprocess.Popen([sys.executable, "-S", "-E", "-c", "while True: pass"])
        for _ in range(BUSY_LOOPS)
    ]
    for loop in loops:
        loop.send_signal(signal.SIGSTOP)
    try:
        yield loops
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _end_all(group: MemoryCgroup) -> None:
    """End what a killed program has left in its cgroup."""
    for _ in range(100):
        pids = group.pids
        if not pids:
            break
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _last_counts(directory: Path) -> list[dict[str, int]]:
    """Return what vrange had in each process, by the counts that a kill leaves behind."""
    found = []
    for path in sorted(directory.iterdir()):
        try:
            counts = read(str(path))
        except (FileRefusedError, OSError):
            continue
        found.append(
            {
                state: sum(getattr(account, f"{state}_bytes") for account in counts.accounts)
                for state in ("idle", "offered", "pinned", "purged")
            }
        )
    return found
