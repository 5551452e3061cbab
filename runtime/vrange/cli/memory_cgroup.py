"""A memory cgroup made to try something out: by the demo, `vrange doctor`, tests and benchmarks."""

from __future__ import annotations

import errno
import os
import time
from itertools import count
from pathlib import Path

from vrange._cgroup.tree import V2, Files, Version, find_hierarchies, read_limit, read_words
from vrange._closing import Closing

__all__ = ["MemoryCgroup"]

_PROC_SELF = Path("/proc/self")
_CLOSE_PATIENCE_SECONDS = 1.0  # a killed process leaves its cgroup a moment after its parent heard


class MemoryCgroup(Closing):
    """A memory cgroup below this process's own, with a limit and without swap.

    It is a tool to try out what happens at a limit: `add` moves processes into it, and if usage is
    over the limit and nothing can be reclaimed, the kernel kills one of them.

    It is made below this process's own cgroup. On v2 a cgroup that holds processes can't enable the
    memory controller for its children. So there it may be made beside the process's cgroup, or
    further up, where the controller is enabled or can be enabled. It stays enabled afterwards,
    because other programs may rely on it by then.

    Parameters
    ----------
    limit_bytes : int
        The limit; the kernel rounds it down to pages.
    name : str, default "vrange"
        The beginning of the directory's name. The process id and a number follow.
    proc_self : path
        The directory with `cgroup` and `mountinfo`; for tests.

    Raises
    ------
    OSError
        If it can't be made here. The message gives the reason for each place.

    Examples
    --------
    ::

        with MemoryCgroup(256 << 20) as cgroup:
            child = subprocess.Popen(command)
            cgroup.add(child.pid)
            child.wait()
            print(cgroup.peak_bytes, cgroup.oom_kills)

    """

    _numbers = count()

    def __init__(
        self,
        limit_bytes: int,
        *,
        name: str = "vrange",
        proc_self: str | os.PathLike[str] = _PROC_SELF,
    ) -> None:
        if limit_bytes <= 0:
            raise ValueError(f"limit_bytes is {limit_bytes}; a limit is more than 0 bytes")
        self._closed = True
        refusals: list[str] = []
        for hierarchy in find_hierarchies(Path(proc_self)):
            parents = list(hierarchy.ancestors()) if hierarchy.files is V2 else []
            for parent in parents or [hierarchy.directory]:
                try:
                    self._directory = self._make(parent, hierarchy.files, name)
                except OSError as error:
                    refusals.append(f"{parent}: {error.strerror}")
                    continue
                self._files = hierarchy.files
                self._closed = False
                try:
                    self.limit_bytes = limit_bytes
                except OSError as error:
                    refusals.append(f"{self._directory}: {error.strerror}")
                    self.close()
                    continue
                return
        if not refusals:
            refusals.append("no hierarchy with a memory controller is mounted")
        raise OSError(errno.EPERM, "can't make a memory cgroup: " + "; ".join(refusals))

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why none can be made here, or None if one can. It tests this by making one."""
        try:
            cls(16 << 20, name="vrange-probe").close()
        except OSError as error:
            return error.strerror
        return None

    @property
    def path(self) -> str:
        """The directory of the cgroup."""
        return str(self._directory)

    @property
    def version(self) -> Version:
        """The version of its hierarchy: "cgroup v1" or "cgroup v2"."""
        return self._files.version

    @property
    def limit_bytes(self) -> int:
        """The limit in bytes. Lowering it below what can be reclaimed raises OSError (v1)."""
        return read_limit(self._directory / self._files.limit)

    @limit_bytes.setter
    def limit_bytes(self, limit_bytes: int) -> None:
        limit = self._directory / self._files.limit
        swap = self._directory / self._files.swap_limit
        if self._files is V2:
            _write(limit, str(limit_bytes))
            if swap.exists():
                _write(swap, "0")
            return
        # v1 limits memory and swap together, and that limit must never be below memory's alone.
        ordered = [limit, swap] if limit_bytes < read_limit(limit) else [swap, limit]
        for file in ordered:
            if file.exists():
                _write(file, str(limit_bytes))

    @property
    def usage_bytes(self) -> int:
        """The bytes in use now."""
        return int((self._directory / self._files.usage).read_text())

    @property
    def peak_bytes(self) -> int | None:
        """The most bytes ever in use; None if the kernel doesn't record it (v2 before 5.19)."""
        try:
            return int((self._directory / self._files.peak).read_text())
        except FileNotFoundError:
            return None

    @property
    def oom_kills(self) -> int:
        """How many of its processes the kernel killed because it was out of memory."""
        return read_words(self._directory / self._files.events).get("oom_kill", 0)

    @property
    def pids(self) -> list[int]:
        """The processes in it."""
        return [int(line) for line in (self._directory / "cgroup.procs").read_text().split()]

    def add(self, pid: int) -> None:
        """Move a process into it. What the process used before stays counted where it was.

        Raises
        ------
        OSError
            If there is no such process, or this one may not move it.

        """
        _write(self._directory / "cgroup.procs", str(pid))

    def close(self) -> None:
        """Remove it. A second call does nothing.

        Raises
        ------
        OSError
            If it still holds processes (EBUSY). They are neither killed nor moved: end them, and
            close again.

        """
        if self._closed:
            return
        deadline = time.monotonic() + _CLOSE_PATIENCE_SECONDS
        while True:
            try:
                self._directory.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                if time.monotonic() > deadline:
                    inside = ", ".join(map(str, self.pids)) or "a process that is ending"
                    raise OSError(
                        errno.EBUSY, f"cgroup {self._directory} still holds {inside}: end it first"
                    ) from None
                time.sleep(0.002)
            else:
                break
        self._closed = True

    def __repr__(self) -> str:
        if self._closed:
            return f"<MemoryCgroup {self.path}, closed>"
        return f"<MemoryCgroup {self.path}, {self.usage_bytes} of {self.limit_bytes} bytes>"

    @classmethod
    def _make(cls, parent: Path, files: Files, name: str) -> Path:
        if files is V2:
            _hand_memory_down(parent)
        while True:
            directory = parent / f"{name}-{os.getpid()}-{next(cls._numbers)}"
            try:
                directory.mkdir()
            except FileExistsError:
                continue  # it belongs to a killed process that had the same id
            return directory


def _hand_memory_down(parent: Path) -> None:
    if "memory" not in (parent / "cgroup.controllers").read_text().split():
        raise OSError(errno.ENODEV, "has no memory controller")
    # On v2, moving a process requires write access to the nearest cgroup around both places.
    if not os.access(parent / "cgroup.procs", os.W_OK):
        raise OSError(errno.EACCES, "this user may not move processes here")
    control = parent / "cgroup.subtree_control"
    if "memory" in control.read_text().split():
        return
    try:
        _write(control, "+memory")
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise OSError(
                errno.EBUSY, "holds processes, so it can't hand the memory controller down"
            ) from None
        raise


def _write(file: Path, text: str) -> None:
    """Write `text` in one call: the kernel takes each write as a command of its own."""
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
