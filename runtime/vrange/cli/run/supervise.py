"""A parent process that measures and is transparent otherwise: signals, job control and the end.

`supervise` executes watch.py in this process's place, and watch.py executes `finish` (finish.py)
once the program has ended. So this process holds nothing of vrange's while the program runs.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vrange._cgroup.limits import MemoryLimit, memory_limit
from vrange._cgroup.tree import find_hierarchies

__all__ = ["Ending", "Run", "Sample", "Sampled", "end_alike", "endings", "supervise"]

_WATCH = Path(__file__).with_name("watch.py")
_SELF = Path("/proc/self")
_NEVER_BLOCKED = {signal.SIGKILL, signal.SIGSTOP}
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
# The path is this process's own, so that the same vrange is found.
_THEN = (
    "import sys; sys.path[:] = {path!r}; from vrange.cli.run.finish import finish; "
    "sys.exit(finish({directory!r}, {number}))"
)


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes
    ----------
    seconds : float
        The time since the start.
    rss_bytes : int
        The resident bytes of all processes.
    cgroup_bytes : int or None
        The bytes of the cgroup.
    processes : int
        The number of processes.
    lazyfree_bytes : int or None
        What of the resident bytes the kernel may reclaim at any moment; None if it was not read
        for this sample.

    """

    seconds: float
    rss_bytes: int
    cgroup_bytes: int | None
    processes: int
    lazyfree_bytes: int | None = None


@dataclass(frozen=True)
class Sampled:
    """The memory of a program and its children over time.

    Attributes
    ----------
    samples : list of Sample
        The measurements.
    peak_rss_bytes, average_rss_bytes : int
        The largest, and the average over time.
    peak_cgroup_bytes : int or None
        The most that the cgroup had, if it has a limit.
    taken : int
        How many measurements were made; of these `samples` are left.
    cpu_seconds : float
        The processor time that measuring took.
    interpreters : set of int
        The Pythons that the program started, other than by fork.
    limit : MemoryLimit or None
        The limit of the cgroup.

    """

    samples: list[Sample]
    peak_rss_bytes: int
    average_rss_bytes: int
    peak_cgroup_bytes: int | None
    taken: int
    cpu_seconds: float
    interpreters: set[int]
    limit: MemoryLimit | None = None


@dataclass(frozen=True)
class Ending:
    """How the program ended, and what was measured until then.

    Attributes
    ----------
    pid : int
        The program's process.
    status : int
        Its exit status; negative: the signal that ended it.
    signal : int or None
        The signal that ended it.
    out_of_memory : bool
        Whether the kernel killed it because its cgroup was out of memory.
    seconds : float
        The time that it ran.
    cpu_seconds : float
        Its processor time.
    largest_rss_bytes : int
        The largest resident size of one process.
    sampler : Sampled
        The samples of its memory.

    """

    pid: int
    status: int
    signal: int | None
    out_of_memory: bool
    seconds: float
    cpu_seconds: float
    largest_rss_bytes: int
    sampler: Sampled


@dataclass(frozen=True)
class Run:
    """A program to run, with the limits of its stack."""

    path: str
    arguments: list[str]
    variables: Mapping[str, str]
    stack_limit: tuple[int, int]


def supervise(
    runs: Sequence[Run], directory: str, kept: Mapping[str, Any], *, lazyfree: bool
) -> NoReturn:
    """Run programs one after another, and then `finish`, all in this process's place.

    Parameters
    ----------
    runs : sequence of Run
        The programs. If a user stops one, no other one is started.
    directory : str
        Where processes that run with vrange leave their records.
    kept : mapping
        What `finish` needs: str, numbers, bool, None, and lists and dicts of these.
    lazyfree : bool
        Whether to read `LazyFree` as well.

    """
    waited_for = set(signal.Signals) - _NEVER_BLOCKED - _FAULTS
    waited_for |= set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1))  # type: ignore[arg-type]
    limit = None
    with suppress(OSError, ValueError):
        limit = memory_limit()
    in_cgroup = limit is not None and limit.source != "machine"
    # It has the program's environment, which must not be written to a disk.
    low = os.memfd_create("vrange-run")
    # Above the standard streams', which may be closed here: it would be one in the interpreter.
    number = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(low)
    code = _THEN.format(path=sys.path, directory=directory, number=number)
    before = [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
    plan = {
        "runs": [_as_bytes(run) for run in runs],
        "waited_for": [int(one) for one in waited_for],
        "mask": before,
        "usage_path": limit.usage_path if limit is not None and in_cgroup else None,
        "limit": vars(limit) if limit is not None and in_cgroup else None,
        "events": [str(one.directory / one.files.events) for one in find_hierarchies(_SELF)],
        "lazyfree": lazyfree,
        "kept": dict(kept),
        "then": (sys.executable, [sys.executable, "-P", "-c", code], _encoded(os.environ)),
    }
    with open(number, "wb", closefd=False) as file:
        marshal.dump(plan, file)
    os.lseek(number, 0, os.SEEK_SET)
    os.set_inheritable(number, True)
    # An interpreter that was moved finds its modules by PYTHONHOME only.
    isolated = ["-S", "-P", "-s", *([] if "PYTHONHOME" in os.environ else ["-E"])]
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    try:
        os.execv(sys.executable, [sys.executable, *isolated, str(_WATCH), str(number)])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(number)


def _as_bytes(run: Run) -> dict[str, Any]:
    """Return it in bytes, because the interpreter of watch.py may have another encoding."""
    return {
        "path": os.fsencode(run.path),
        "arguments": list(map(os.fsencode, run.arguments)),
        "variables": _encoded(run.variables),
        "stack_limit": run.stack_limit,
    }


def _encoded(variables: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}


def endings(descriptor: int) -> tuple[list[Ending], dict[str, Any]]:
    """Return how the programs ended, and what was kept, and close the descriptor.

    Signals are as they were before.

    Raises
    ------
    OSError
        If a program could not be executed.

    """
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb") as file:
        plan = marshal.load(file)
    while signal.sigtimedwait(set(plan["waited_for"]) - {signal.SIGTSTP}, 0) is not None:
        pass  # it came after the program's end, so there is no receiver any more
    signal.pthread_sigmask(signal.SIG_SETMASK, plan["mask"])
    limit = None if plan["limit"] is None else MemoryLimit(**plan["limit"])
    found = []
    for result in plan["results"]:
        if "errno" in result:
            raise OSError(
                result["errno"], os.strerror(result["errno"]), os.fsdecode(result["file"])
            )
        sampled = result.pop("sampled")
        sampled["samples"] = [Sample(*one) for one in sampled["samples"]]
        sampled["interpreters"] = set(sampled["interpreters"])
        found.append(Ending(**result, sampler=Sampled(**sampled, limit=limit)))
    return found, plan["kept"]


def end_alike(ending: Ending) -> int:
    """Return the program's exit status, or end by the same signal, so that shells can tell."""
    if ending.signal is None:
        return ending.status
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if ending.signal not in _NEVER_BLOCKED:
        signal.signal(ending.signal, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {ending.signal})
    os.kill(os.getpid(), ending.signal)
    return 128 + ending.signal  # not reached, unless the signal doesn't end a process
