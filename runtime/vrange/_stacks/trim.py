"""Inspect and trim stacks: this thread's own, and those of threads that are blocked."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass

from vrange._core import ffi, lib
from vrange._stacks.deep import Release, release_number
from vrange.errors import VrangeError

_MAIN_REFUSED = (
    "the main thread's own stack can't be trimmed: it grows as it is touched, so the memory below "
    "its frames may belong to other code (facebook/folly#1488). Deep calls return the memory of "
    "their own stacks, on this thread too"
)


@dataclass(frozen=True)
class StackUse:
    """One stack: a pooled one of deep calls, or a registered thread's own.

    Attributes
    ----------
    kind : "deep" or "thread"
        Whether it is a stack of deep calls or a registered thread's own.
    thread_id : int or None
        The thread that runs on it (threading.get_native_id()); None for a stack in the pool.
    reserved_bytes : int
        Its address space.
    resident_bytes : int
        The memory behind it, including what the kernel may take.
    high_water_bytes : int
        How far down calls went, by the page tables.

    """

    kind: str
    thread_id: int | None
    reserved_bytes: int
    resident_bytes: int
    high_water_bytes: int


@dataclass(frozen=True)
class StackInfo:
    """All stacks that vrange knows, and totals since the process began.

    Attributes
    ----------
    stacks : tuple of StackUse
        The stacks of deep calls, in use or pooled.
    threads : tuple of StackUse
        The own stacks of registered threads.
    deep_calls : int
        Deep calls that ran on a stack of the pool.
    returned_bytes : int
        Bytes that were offered or discarded.
    trims : int
        Trims of a thread's stack that returned something.

    """

    stacks: tuple[StackUse, ...]
    threads: tuple[StackUse, ...]
    deep_calls: int
    returned_bytes: int
    trims: int

    @property
    def reserved_bytes(self) -> int:
        """The address space of all listed stacks."""
        return sum(use.reserved_bytes for use in self.stacks + self.threads)

    @property
    def resident_bytes(self) -> int:
        """The memory behind all listed stacks."""
        return sum(use.resident_bytes for use in self.stacks + self.threads)


def stack_info() -> StackInfo:
    """Return what the stacks of deep calls and of registered threads hold.

    Returns
    -------
    StackInfo
        The stacks, and totals since the process began.

    Notes
    -----
    Any thread may call this; the child of a fork gets its own stacks. It reads page tables
    (mincore(2), pagemap(5)), which takes some 5 µs for each resident MiB: use it for a page of
    metrics, not on a hot path.

    Examples
    --------
    >>> import vrange
    >>> vrange.deep_call(len, [])
    0
    >>> vrange.stack_info().deep_calls >= 1
    True

    """
    deep = ffi.new("vrange_stack_info[]", lib.VRANGE_STACKS_MOST)
    found = lib.vrange_stacks_read(deep, lib.VRANGE_STACKS_MOST)
    stacks = tuple(
        StackUse(
            "deep",
            deep[i].thread_id or None,
            deep[i].bytes,
            deep[i].resident_bytes,
            deep[i].high_water_bytes,
        )
        for i in range(min(found, lib.VRANGE_STACKS_MOST))
    )
    own = ffi.new("vrange_thread_info[]", lib.VRANGE_THREADS_MOST)
    found = lib.vrange_threads_read(own, lib.VRANGE_THREADS_MOST)
    threads = tuple(
        StackUse(
            "thread",
            own[i].thread_id,
            own[i].bytes,
            own[i].resident_bytes,
            own[i].high_water_bytes,
        )
        for i in range(min(found, lib.VRANGE_THREADS_MOST))
    )
    totals = ffi.new("vrange_stack_totals *")
    lib.vrange_stack_totals_read(totals)
    return StackInfo(stacks, threads, totals.taken, totals.returned_bytes, totals.trims)


def trim_stack(release: Release = "now") -> int:
    """Return to the kernel what the calling thread's stack holds below its frames.

    The last 32 KiB below the stack pointer stay. Inside a deep call, both the deep stack and the
    thread's own stack are trimmed.

    Parameters
    ----------
    release : "now" or "volatile"
        As for `DeepStack`, without ``"keep"``.

    Returns
    -------
    int
        The bytes returned.

    Raises
    ------
    VrangeError
        The thread runs on the main thread's own stack, or on one that vrange does not know. The
        message gives the reason. Nothing was changed.
    ValueError
        ``release`` is neither "now" nor "volatile".

    Notes
    -----
    Each thread trims only itself; see `trim_idle_stacks` for others. See madvise(2).

    Examples
    --------
    >>> import threading, vrange
    >>> worker = threading.Thread(target=vrange.trim_stack)
    >>> worker.start()
    >>> worker.join()

    """
    result = int(lib.vrange_stack_trim(_trim_number(release)))
    if result == -errno.EPERM:
        raise VrangeError(_MAIN_REFUSED)
    if result < 0:
        raise VrangeError(
            "this thread runs on a stack that is neither its own nor a deep one, and its bounds "
            f"are unknown (error {-result}): nothing was trimmed"
        )
    return result


def register_thread() -> None:
    """Let `trim_idle_stacks` reach the calling thread, until the thread ends.

    For thread pools: ``ThreadPoolExecutor(initializer=vrange.register_thread)``. A second call
    changes nothing. In the child of a fork only the forking thread stays registered.

    Raises
    ------
    VrangeError
        This is the main thread, whose stack can't be trimmed (the message says why); or 4096
        threads are registered already.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> import vrange
    >>> with ThreadPoolExecutor(2, initializer=vrange.register_thread) as pool:
    ...     pool.submit(len, "abc").result()
    3

    """
    result = int(lib.vrange_thread_register())
    if result == -errno.EPERM:
        raise VrangeError(_MAIN_REFUSED)
    if result < 0:
        why = {-errno.ENOSPC: f"{lib.VRANGE_THREADS_MOST} threads are registered already"}.get(
            result, f"error {-result}"
        )
        raise VrangeError(
            f"thread {threading.get_native_id()} can't be registered for trimming: {why}"
        )


def trim_idle_stacks(release: Release = "now", wait: float = 0.2) -> int:
    """Make registered threads that are blocked trim their stacks.

    A thread that waits for a lock, a queue, a socket or a sleep gets a signal, trims its own stack
    and goes on waiting: the interrupted call resumes (PEP 475). Running threads are left alone. C
    libraries that give up when a system call is interrupted (EINTR) must not be used in registered
    threads.

    Parameters
    ----------
    release : "now" or "volatile"
        As for `DeepStack`, without ``"keep"``.
    wait : float
        Seconds to wait for the threads. A thread that blocks the signal or waits for it is left
        alone.

    Returns
    -------
    int
        The bytes returned to the kernel.

    Raises
    ------
    ValueError
        ``release`` is neither "now" nor "volatile", or ``wait`` is negative or not a number.

    Notes
    -----
    Any thread may call this; callers take turns. The calling thread is not trimmed. The signal is
    SIGURG, whose default is to be ignored, so that it can end no program: it may still be pending
    when the thread executes another one (execve(2)). A handler of the program's for SIGURG sees
    only the program's own signals.

    Examples
    --------
    >>> import vrange
    >>> vrange.trim_idle_stacks()
    0

    """
    if not wait >= 0:
        raise ValueError(f"wait must be seconds, 0 or more, not {wait!r}")
    threads = ffi.new("int *")
    nanoseconds = int(min(wait, 3600.0) * 1e9)
    return int(lib.vrange_stacks_trim_idle(_trim_number(release), nanoseconds, threads))


def _trim_number(release: str) -> int:
    if release == "keep":
        raise ValueError("release must be 'now' or 'volatile': to keep everything, do not trim")
    return release_number(release)
