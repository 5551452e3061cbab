"""The parent process of a report: it starts the program, samples its memory, and passes signals on.

It is a program of its own (`python -E -S watch.py PLAN`), because what it holds counts in the
program's cgroup. vrange's modules would be 20 MiB there. So this file imports only modules that
cost next to nothing, and neither vrange nor dataclasses, pathlib and the like. supervise.py writes
the plan, executes this file in its own place, and is executed again once the program has ended.

The program stays in the parent's process group. So the terminal's signals (Ctrl-C, Ctrl-Z) reach it
directly, and the parent must not pass them on a second time. A signal sent to the parent alone is
passed on. If the program stops, the parent stops as well, so that the shell notices, and continues
on SIGCONT.

A sample reads one line of /proc per process. The cost of a sample determines how often one is
taken: samples, looking children up and reading LazyFree each use at most a thousandth of a
processor.
"""

from __future__ import annotations

import marshal
import os
import resource
import signal
import sys
import time

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from typing import Any

_SI_USER, _SI_QUEUE, _SI_TKILL = 0, -1, -6
_GROUP_SECONDS = 0.01  # the time within which a signal to a group reaches all its members
_BY_USER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_INTERPRETERS = ("python", "pypy")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SHARE = 1e-3
_SECONDS_LEAST = 0.05
_FAMILY_SECONDS = 0.2  # the interval at which children are looked up
_SAMPLES_MOST = 4096


def _read(path: str) -> bytes:
    """Return a small file's content; nothing if it can't be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""


class Family:
    """Process `pid` and its descendants, as of the last `look()`."""

    def __init__(self, pid: int) -> None:
        self.pids = [pid]
        # Those that were seen to run a Python of their own, ended ones too: started by the
        # program, not forked from it.
        self.interpreters: set[int] = set()
        self._settled: dict[int, bytes] = {}

    def look(self) -> None:
        """Look the descendants up, if the kernel lists them (CONFIG_PROC_CHILDREN)."""
        found = self.pids[:1]
        for one in found:
            try:
                tasks = os.listdir(f"/proc/{one}/task")
            except OSError:
                continue
            for task in tasks:
                found += map(int, _read(f"/proc/{one}/task/{task}/children").split())
        self.pids = found
        self._settled = {pid: self._settled[pid] for pid in found if pid in self._settled}
        program = _read(f"/proc/{found[0]}/cmdline")
        for one in found[1:]:
            self._look_at(one, program)

    def _look_at(self, pid: int, program: bytes) -> None:
        # Until a child calls exec, it has its parent's executable and command line.
        command = _read(f"/proc/{pid}/cmdline")
        if command in (b"", program) or self._settled.get(pid) == command:
            return
        self._settled[pid] = command
        try:
            name = os.readlink(f"/proc/{pid}/exe").rpartition("/")[2]
        except OSError:
            return
        if name.startswith(_INTERPRETERS):
            self.interpreters.add(pid)


class Sampler:
    """Samples process `pid` and the processes that it starts; supervise.Sampled has the fields."""

    def __init__(self, pid: int, usage_path: str | None, lazyfree: bool) -> None:
        self.samples: list[tuple[float, int, int | None, int, int | None]] = []
        self.peak_rss_bytes = 0
        self.peak_cgroup_bytes: int | None = None
        self.taken = 0
        self.pause_seconds = _SECONDS_LEAST
        self._usage_path = usage_path
        self._began = time.monotonic()
        self._cpu = 0.0
        self._sample_cpu = 0.0  # of that, without what has a budget of its own
        self._family = Family(pid)
        self._family_due = self._lazyfree_due = 0.0
        self._reads_lazyfree = lazyfree
        self._weighted = 0.0
        self._seconds = 0.0

    def sample(self) -> None:
        """Take one sample, or none if the process has ended."""
        began = time.thread_time()
        now = time.monotonic() - self._began
        if now >= self._family_due:
            self._family.look()
            self._family_due = now + max(_FAMILY_SECONDS, (time.thread_time() - began) / _SHARE)
        lazyfree = None
        if self._reads_lazyfree and now >= self._lazyfree_due:
            # The kernel walks all pages of a process for it, so it has a share of its own, and
            # most samples of a large process are without it.
            reads = time.thread_time()
            lazyfree = sum(map(_lazyfree_bytes, self._family.pids))
            self._lazyfree_due = now + max(_SECONDS_LEAST, (time.thread_time() - reads) / _SHARE)
        apart = time.thread_time()
        sizes = [size for size in map(_rss_bytes, self._family.pids) if size]
        if sizes:
            self._add(now, sum(sizes), self._cgroup(), len(sizes), lazyfree)
        ended = time.thread_time()
        self._cpu += ended - began
        self._sample_cpu += ended - apart
        self.taken += 1
        self.pause_seconds = max(_SECONDS_LEAST, self._sample_cpu / self.taken / _SHARE)

    def told(self) -> dict[str, Any]:
        """Return what supervise.Sampled is made of."""
        return {
            "samples": self.samples,
            "peak_rss_bytes": self.peak_rss_bytes,
            "peak_cgroup_bytes": self.peak_cgroup_bytes,
            "average_rss_bytes": int(self._weighted / self._seconds)
            if self._seconds
            else self.peak_rss_bytes,
            "taken": self.taken,
            "cpu_seconds": self._cpu,
            "interpreters": sorted(self._family.interpreters),
        }

    def _add(
        self, now: float, rss: int, cgroup: int | None, processes: int, lazyfree: int | None
    ) -> None:
        before = self.samples[-1][0] if self.samples else 0.0
        self._weighted += rss * (now - before)
        self._seconds = now
        self.peak_rss_bytes = max(self.peak_rss_bytes, rss)
        if cgroup is not None:
            self.peak_cgroup_bytes = max(self.peak_cgroup_bytes or 0, cgroup)
        self.samples.append((now, rss, cgroup, processes, lazyfree))
        if len(self.samples) >= _SAMPLES_MOST:
            # A program may run for weeks, so halve the samples: keep the larger of each two.
            pairs = zip(self.samples[::2], self.samples[1::2], strict=False)
            self.samples = [max(pair, key=lambda one: one[1]) for pair in pairs]

    def _cgroup(self) -> int | None:
        text = _read(self._usage_path) if self._usage_path else b""
        return int(text) if text.strip().isdigit() else None


def _rss_bytes(pid: int) -> int:
    words = _read(f"/proc/{pid}/statm").split()
    return int(words[1]) * _PAGE if len(words) > 1 else 0


def _lazyfree_bytes(pid: int) -> int:
    after = _read(f"/proc/{pid}/smaps_rollup").partition(b"\nLazyFree:")[2].split()
    return int(after[0]) << 10 if after else 0


def _oom_kills(files: list[str]) -> int:
    """Return how many processes of these cgroups were killed out of memory."""
    kills = 0
    for file in files:
        words = _read(file).split()
        if b"oom_kill" in words:
            kills += int(words[words.index(b"oom_kill") + 1])
    return kills


def _follow(pid: int, sampler: Sampler, waited_for: set[int]) -> tuple[int, resource.struct_rusage]:
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


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has just ended


def _pass_on(pid: int, came: signal.struct_siginfo) -> None:
    sent_by_somebody = came.si_code in (_SI_USER, _SI_QUEUE, _SI_TKILL)
    if not sent_by_somebody and came.si_signo in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
        return  # from the terminal, which sent it to the program as well
    if came.si_signo == signal.SIGWINCH and not sent_by_somebody:
        return
    if came.si_pid == pid:
        return  # the program sent it to its whole group
    _kill(pid, came.si_signo)


def _stop_too(pid: int) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    # The parent was continued, by fg or kill -CONT. Shells continue the whole group, so the program
    # has its SIGCONT already. A second one would be one too many for a program that handles it.
    signal.sigtimedwait({signal.SIGCONT}, 0)
    if _is_stopped(pid):
        time.sleep(_GROUP_SECONDS)
        if _is_stopped(pid):
            _kill(pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] == [b"T"]


def _watch(run: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """Run a program to its end; supervise.Ending has the fields of the result."""
    kills = _oom_kills(plan["events"])
    began = time.monotonic()
    resource.setrlimit(resource.RLIMIT_STACK, run["stack_limit"])
    try:
        pid = os.posix_spawn(
            run["path"],
            run["arguments"],
            run["variables"],
            setsigmask=plan["mask"],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
    except OSError as error:
        return {"errno": error.errno, "file": run["path"]}
    sampler = Sampler(pid, plan["usage_path"], bool(plan["lazyfree"]))
    status, usage = _follow(pid, sampler, plan["waited_for"])
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    return {
        "pid": pid,
        "status": os.waitstatus_to_exitcode(status),
        "signal": number,
        "out_of_memory": number == signal.SIGKILL and _oom_kills(plan["events"]) > kills,
        "seconds": time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "largest_rss_bytes": usage.ru_maxrss << 10,
        "sampled": sampler.told(),
    }


def _end_alike(result: dict[str, Any]) -> None:
    """End as the program ended, without a report."""
    number = result.get("signal")
    if number is not None:
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(result.get("status", 1))


def main(number: int) -> None:
    """Do what the plan in this descriptor says, and execute what it ends with."""
    os.set_inheritable(number, False)
    with open(number, "r+b", closefd=False) as file:
        plan = marshal.load(file)
        runs = plan.pop("runs")
        plan["results"] = results = []
        for run in runs:
            results.append(_watch(run, plan))
            if "errno" in results[-1] or results[-1]["signal"] in _BY_USER:
                break  # a user who stops the first run does not want a second one
        try:
            file.seek(0)
            marshal.dump(plan, file)
            file.flush()
            os.set_inheritable(number, True)
            os.execve(*plan["then"])
        except OSError as error:
            sys.stderr.write(f"vrange run: there is no report: {error}\n")
            _end_alike(results[-1])


if __name__ == "__main__":
    main(int(sys.argv[1]))
