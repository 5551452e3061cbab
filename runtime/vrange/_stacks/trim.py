"""Stacks looked at and trimmed: this thread's, and those of threads that wait."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from vrange._core import ffi, lib
from vrange._stacks.deep import Release, release_number
from vrange.errors import VrangeError

_EPERM, _ENOTSUP, _ENOSPC = 1, 95, 28
_MAIN_REFUSED = (
    "the main thread's own stack can't be trimmed: it grows as it is touched, so what lies below "
    "its frames may be somebody else's memory (facebook/folly#1488). Deep calls give their own "
    "stacks back, on this thread too"
)


@dataclass(frozen=True)
class StackUse:
    """One stack: a pooled one of deep calls, or a registered thread's own.

    `thread_id` is the thread that is on it (threading.get_native_id()), None where it waits in
    the pool. All sizes are bytes. `resident_bytes` is memory behind it, what the kernel may take
    included; `high_water_bytes` is how far down calls went, by the page tables.
    """

    kind: str
    thread_id: int | None
    reserved_bytes: int
    resident_bytes: int
    high_water_bytes: int


@dataclass(frozen=True)
class StackInfo:
    """All stacks that vrange knows, and what was given back since the process began."""

    stacks: tuple[StackUse, ...]
    threads: tuple[StackUse, ...]
    deep_calls: int
    returned_bytes: int
    trims: int

    @property
    def reserved_bytes(self) -> int:
        """Address space of all stacks listed."""
        return sum(use.reserved_bytes for use in self.stacks + self.threads)

    @property
    def resident_bytes(self) -> int:
        """Memory behind all stacks listed."""
        return sum(use.resident_bytes for use in self.stacks + self.threads)


def stack_info() -> StackInfo:
    """Tell what the stacks hold: those of deep calls, and those of registered threads.

    Any thread may ask, and a child after fork sees its own. It looks at page tables (mincore(2),
    pagemap(5)), some 5 µs a MiB that is resident: for a page of metrics, not for a hot path.

    >>> import vrange
    >>> vrange.deep_call(len, [])
    0
    >>> vrange.stack_info().deep_calls >= 1
    True
    """
    capacity = 4096
    deep = ffi.new("vrange_stack_info[]", capacity)
    found = lib.vrange_stacks_read(deep, capacity)
    stacks = tuple(
        StackUse(
            "deep",
            deep[i].thread_id or None,
            deep[i].bytes,
            deep[i].resident_bytes,
            deep[i].high_water_bytes,
        )
        for i in range(min(found, capacity))
    )
    own = ffi.new("vrange_thread_info[]", capacity)
    found = lib.vrange_threads_read(own, capacity)
    threads = tuple(
        StackUse(
            "thread",
            own[i].thread_id,
            own[i].bytes,
            own[i].resident_bytes,
            own[i].high_water_bytes,
        )
        for i in range(min(found, capacity))
    )
    totals = ffi.new("vrange_stack_totals *")
    lib.vrange_stack_totals_read(totals)
    return StackInfo(stacks, threads, totals.taken, totals.returned_bytes, totals.trims)


def trim_stack(release: Release = "now") -> int:
    """Give back what the calling thread's stack holds below its frames; returns the bytes.

    The last 32 KiB below the stack pointer stay. Inside a deep call, the deep stack is trimmed and
    the thread's own below it. ``release`` is as in `DeepStack`, without ``"keep"``.

    Raises
    ------
    VrangeError
        On the main thread's own stack, and on stacks that are nobody's vrange knows of, with the
        reason. Nothing was touched.
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
    if result == -_EPERM:
        raise VrangeError(_MAIN_REFUSED)
    if result < 0:
        raise VrangeError(
            "this thread runs on a stack that is neither its own nor a deep one, and its bounds "
            f"are not known (error {-result}): it was left alone"
        )
    return result


def register_thread() -> None:
    """Let `trim_idle_stacks` reach the calling thread, until the thread ends.

    Made for thread pools: ``ThreadPoolExecutor(initializer=vrange.register_thread)``. A second
    call changes nothing. In the child of a fork only the forking thread stays registered.

    Raises
    ------
    VrangeError
        In the main thread, whose stack can't be trimmed (`trim_stack` says why); where 4096
        threads are registered already, or every real-time signal has a handler.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> import vrange
    >>> with ThreadPoolExecutor(2, initializer=vrange.register_thread) as pool:
    ...     pool.submit(len, "abc").result()
    3

    """
    result = int(lib.vrange_thread_register())
    if result == -_EPERM:
        raise VrangeError(_MAIN_REFUSED)
    if result < 0:
        why = {
            -_ENOSPC: "4096 threads are registered already, or every real-time signal is taken"
        }.get(result, f"error {-result}")
        raise VrangeError(
            f"thread {threading.get_native_id()} can't be registered for trimming: {why}"
        )


def trim_idle_stacks(release: Release = "now", wait: float = 0.2) -> int:
    """Make registered threads that are blocked trim their stacks; returns the bytes given back.

    A thread that waits for a lock, a queue, a socket or a sleep is sent a signal, trims itself and
    waits on: the call it was in resumes (PEP 475). Threads that run are left alone. C libraries
    that give up when a system call is interrupted (EINTR) must not be used in registered threads.

    Parameters
    ----------
    release : "now" or "volatile"
        As in `DeepStack`.
    wait : float
        Seconds to wait for the threads' answers. One that has blocked the signal answers later.

    Raises
    ------
    ValueError
        ``release`` is neither "now" nor "volatile", or ``wait`` is negative or no number.

    Notes
    -----
    Any thread may call it; callers take turns. The calling thread is not trimmed. The signal is a
    real-time one that nobody handled when the first thread registered; see signal(7).

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
        raise ValueError(
            "release must be 'now' or 'volatile': keeping all is what not trimming does"
        )
    return release_number(release)
