"""A parent process that measures and is transparent otherwise: signals, job control and the end.

The program stays in the parent's process group. So the terminal's signals (Ctrl-C, Ctrl-Z) reach it
directly, and the parent must not pass them on a second time. A signal sent to the parent alone is
passed on. If the program stops, the parent stops as well, so that the shell notices, and continues
on SIGCONT.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vrange._cgroup.tree import find_hierarchies, read_words
from vrange.cli.run.sampling import Sampler

__all__ = ["Ending", "end_alike", "supervise"]

_SI_USER, _SI_QUEUE, _SI_TKILL = 0, -1, -6
_GROUP_SECONDS = 0.01  # the time within which a signal to a group reaches all its members
_NEVER_BLOCKED = {signal.SIGKILL, signal.SIGSTOP}
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}


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
    sampler : Sampler
        The samples of its memory.

    """

    pid: int
    status: int
    signal: int | None
    out_of_memory: bool
    seconds: float
    cpu_seconds: float
    largest_rss_bytes: int
    sampler: Sampler


def supervise(
    path: str, arguments: list[str], variables: Mapping[str, str], *, lazyfree: bool = False
) -> Ending:
    """Run a program to its end, and sample its memory; with `lazyfree`, what is reclaimable too.

    Raises
    ------
    OSError
        If it can't be executed.

    """
    waited_for = set(signal.Signals) - _NEVER_BLOCKED - _FAULTS
    waited_for |= set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1))  # type: ignore[arg-type]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    kills = _oom_kills()
    began = time.monotonic()
    try:
        pid = os.posix_spawn(
            path,
            arguments,
            variables,
            setsigmask=before,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
        sampler = Sampler(pid, lazyfree=lazyfree)
        status, usage = _follow(pid, sampler, waited_for)
    finally:
        while signal.sigtimedwait(waited_for - {signal.SIGTSTP}, 0) is not None:
            pass  # it came after the program's end, so there is no receiver any more
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    return Ending(
        pid,
        os.waitstatus_to_exitcode(status),
        number,
        number == signal.SIGKILL and _oom_kills() > kills,
        time.monotonic() - began,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss << 10,
        sampler,
    )


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


def _follow(
    pid: int, sampler: Sampler, waited_for: set[signal.Signals]
) -> tuple[int, resource.struct_rusage]:
    due = 0.0
    while True:
        if time.monotonic() >= due:
            sampler.sample()
            due = time.monotonic() + sampler.pause_seconds
        came = signal.sigtimedwait(waited_for, max(0.0, due - time.monotonic()))
        if came is not None and came.si_signo != signal.SIGCHLD:
            _pass_on(pid, came)
            continue
        while True:
            # Wait for any child: as a container's first process, this one also adopts orphans.
            try:
                ended, status, usage = os.wait4(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                break
            if ended == 0:
                break
            if ended != pid:
                continue
            if os.WIFSTOPPED(status):
                _stop_too(pid)
            else:
                return status, usage


def _pass_on(pid: int, came: signal.struct_siginfo) -> None:
    sent_by_somebody = came.si_code in (_SI_USER, _SI_QUEUE, _SI_TKILL)
    if not sent_by_somebody and came.si_signo in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
        return  # from the terminal, which sent it to the program as well
    if came.si_signo == signal.SIGWINCH and not sent_by_somebody:
        return
    if came.si_pid == pid:
        return  # the program sent it to its whole group
    with suppress(ProcessLookupError):
        os.kill(pid, came.si_signo)


def _stop_too(pid: int) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    # The parent was continued, by fg or kill -CONT. Shells continue the whole group, so the program
    # has its SIGCONT already. A second one would be one too many for a program that handles it.
    signal.sigtimedwait({signal.SIGCONT}, 0)
    if _is_stopped(pid):
        time.sleep(_GROUP_SECONDS)
        if _is_stopped(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[:1] == ["T"]


def _oom_kills() -> int:
    """Return how many processes of this cgroup and its ancestors were killed out of memory."""
    return sum(
        read_words(hierarchy.directory / hierarchy.files.events).get("oom_kill", 0)
        for hierarchy in find_hierarchies(Path("/proc/self"))
    )
