"""A child process for one run, in a memory cgroup of its own if one can be made.

However the run ends, and whatever ends it, the process is gone and its cgroup removed once the
`with` block is left.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO

from vrange.cli.demo.messages import Job, Message, Result, from_line, to_line
from vrange.cli.memory_cgroup import MemoryCgroup

__all__ = ["Child", "Ending"]

# The child reads its job first, when it is in its cgroup: imports before that count elsewhere.
_BOOTSTRAP = """\
import sys
job = sys.stdin.readline()
from vrange.cli.demo.worker import main
main(job)
"""
_ERROR_BYTES = 2000


@dataclass(frozen=True)
class Ending:
    """How a run ended, as the system reports it.

    Attributes
    ----------
    status : int
        The exit status; negative: the signal that ended the process.
    oom_kills : int
        How many processes of its cgroup the kernel killed because it was out of memory.
    peak_bytes : int or None
        The highest usage of its cgroup, if the kernel records it.
    over : bool
        Without a cgroup: whether it stopped at the point where it would have been killed.
    error : str
        The end of what it wrote to standard error.

    """

    status: int
    oom_kills: int = 0
    peak_bytes: int | None = None
    over: bool = False
    error: str = ""

    @property
    def finished(self) -> bool:
        """Whether it ran to its end."""
        return self.status == 0 and not self.over

    @property
    def word(self) -> str:
        """How it ended, in one or a few words."""
        if self.status < 0:
            return "killed"
        if self.status > 0:
            return "failed"
        return "finished" if not self.over else "over the limit"

    def __str__(self) -> str:
        if self.status < 0:
            name = signal.Signals(-self.status).name
            if self.oom_kills:
                return f"killed by the kernel ({name}, oom_kill {self.oom_kills})"
            return f"killed by {name}, not because of memory"
        return f"{self.word} (exit status {self.status})" if self.status else self.word


class Child:
    """One run. Use it in a `with` statement; `ending` is set once `messages` has ended.

    Parameters
    ----------
    job : Job
        What to do.

    Raises
    ------
    OSError
        If a cgroup is required and can't be made, or the process can't be started.

    """

    def __init__(self, job: Job) -> None:
        self.ending: Ending | None = None
        self._job = job
        self._over = False
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Child:
        with self._undo:
            with _signals_put_off():
                self._start()
            self._undo = self._undo.pop_all()
        return self

    def _start(self) -> None:
        job = self._job
        self._cgroup = MemoryCgroup(job.limit_bytes, name="vrange-demo") if job.enforced else None
        if self._cgroup is not None:
            self._undo.callback(self._cgroup.close)
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._undo.callback(self._errors.close)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOTSTRAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._undo.callback(self._end)
        if self._cgroup is not None:
            self._cgroup.add(self._process.pid)
        assert self._process.stdin is not None
        self._process.stdin.write(to_line(job))
        self._process.stdin.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _signals_put_off():
            self._undo.close()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def messages(self) -> Iterator[Message]:
        """Yield the child's messages until it ends or is killed."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith("\n"):
                break  # it was killed in the middle of a line
            message = from_line(line)
            if isinstance(message, Result):
                self._over = message.over
            yield message
        status = self._process.wait()
        self._errors.seek(0)
        error = self._errors.read()[-_ERROR_BYTES:].decode(errors="replace").strip()
        cgroup = self._cgroup
        if cgroup is None:
            self.ending = Ending(status, over=self._over, error=error)
        else:
            self.ending = Ending(status, cgroup.oom_kills, cgroup.peak_bytes, error=error)

    def _end(self) -> None:
        self._process.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()


@contextlib.contextmanager
def _signals_put_off() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM: a start or a clean-up must not stop halfway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: arrived.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in arrived:
            signal.raise_signal(late)
