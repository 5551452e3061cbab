"""Threads whose own stacks are deep: main's, after `vrange run --deep`, and those started later."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

from vrange._core import deep, lib
from vrange._working_child import when_working
from vrange.errors import VrangeError
from vrange.sizes import format_bytes, parse_bytes

__all__ = ["LEAST_BYTES", "deep_threads", "deepen", "main_bytes", "thread_bytes"]

LEAST_BYTES = 16 << 20
_LIMIT_SHARE = 1024  # threads of this size fit below RLIMIT_AS or RLIMIT_DATA
_watches = False
_most = _given = 0  # the size that threads may have, and the one that they are given
_LIMITS = {"RLIMIT_AS": resource.RLIMIT_AS, "RLIMIT_DATA": resource.RLIMIT_DATA}


def main_bytes(stack: int | str) -> int:
    """Return how deep main's stack may become; ValueError and TypeError say what is accepted."""
    if stack == "auto":
        return int(lib.VRANGE_STACK_AUTOMATIC_BYTES)
    size = parse_bytes(stack, "stack")
    if not LEAST_BYTES <= size < 1 << 46:
        raise ValueError(f"stack must be {format_bytes(LEAST_BYTES)} to 64 TiB, not {stack!r}")
    return size


def thread_bytes(most: int) -> tuple[int, str]:
    """Return the largest size of stack that any number of threads can have here, up to `most`.

    The C library makes all of a thread's stack writable at once. The kernel counts that, and
    refuses it long before there is memory behind it. If 16 MiB is too much, the size is 0, and the
    text says why.
    """
    size, reason = most, ""
    for name, number in _LIMITS.items():
        limit = resource.getrlimit(number)[0]
        if limit != resource.RLIM_INFINITY and limit // _LIMIT_SHARE < size:
            size, reason = limit // _LIMIT_SHARE, f"{name} is {format_bytes(limit)}"
    policy = _overcommit_policy()
    if policy == 2:
        return 0, "vm.overcommit_memory=2 counts each thread's whole stack as memory"
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if policy == 0 and machine // 2 < size:
        size, reason = machine // 2, f"the machine has {format_bytes(machine)}"
    size -= size % os.sysconf("SC_PAGE_SIZE")
    return (size, "") if size >= LEAST_BYTES else (0, reason)


def deepen(main: int, usual: int) -> tuple[int, int, str]:
    """Make this thread, which is main, deep, and all threads that are started from now on.

    Parameters
    ----------
    main : int
        The bytes to which main's stack may grow.
    usual : int
        The part of them that main has without vrange.

    Returns
    -------
    tuple[int, int, str]
        The bytes for main and for threads, and why threads have none.

    Raises
    ------
    OSError
        If this interpreter's limits are unknown, or main's stack can't grow.

    """
    made = deep.deepen_main(main, min(usual, main // 2))
    size, reason = thread_bytes(main)
    _start_with(main, size)
    return made, size, reason


def _start_with(most: int, size: int) -> None:
    global _watches, _most, _given
    deep.deepen_threads(LEAST_BYTES)
    threading.stack_size(size)
    _most, _given = most, size
    if not _watches:
        os.register_at_fork(after_in_child=lambda: when_working(deep.watch_stacks))
        deep.after_limits(_fit_limits)
        deep.watch_handlers()
        _watches = True


def _fit_limits() -> None:
    """Give threads what the limits allow now, unless the program has set a size of its own."""
    global _given
    size = threading.stack_size()  # which also sets it to 0
    if size == _given:
        size = _given = thread_bytes(_most)[0]
    threading.stack_size(size)


def _overcommit_policy() -> int:
    try:
        return int(Path("/proc/sys/vm/overcommit_memory").read_text())
    except (OSError, ValueError):
        return 0


def deep_threads(stack: int | str = "auto") -> None:
    """Let recursion in threads that are started from now on go as deep as memory allows.

    For a program that can't be started by ``vrange run --deep``. The calling thread and other
    threads that run already stay as they are: use `deep_call` there.

    Parameters
    ----------
    stack : "auto" or int or str
        Address space for each thread's stack: bytes, or a string such as ``"256MiB"``, at least 16
        MiB. ``"auto"`` (default) is 4 GiB, or less where the machine or RLIMIT_AS has no room for
        many of these. Memory is taken only for what calls touch.

    Raises
    ------
    TypeError, ValueError
        ``stack`` is not a size, or too small.
    VrangeError
        Stacks of this size are not possible here; the message says why: vm.overcommit_memory=2, a
        low RLIMIT_AS or RLIMIT_DATA, or an interpreter whose recursion limits vrange does not find.

    Notes
    -----
    Threads keep the stack that the C library makes for them; it is only larger, as after
    `threading.stack_size`. What is more than 8 MiB of it is opened step by step, as long as memory
    is left. Runaway recursion raises RecursionError while the memory for its end is still there, as
    in a `deep_call`. A thread that went deeper than 8 MiB returns the memory of its stack within a
    second after it is shallow again: it gets a signal for that, and trims itself.

    This covers executors' workers, and threads of C libraries that call Python on a stack of 16 MiB
    or more. It covers the child of a fork. A later ``threading.stack_size()`` of the program's own
    counts: a thread is as deep as its stack. See pthread_attr_setstacksize(3).

    Examples
    --------
    >>> import json, threading, vrange
    >>> vrange.deep_threads()
    >>> text = "[" * 50_000 + "]" * 50_000
    >>> thread = threading.Thread(target=json.loads, args=(text,))
    >>> thread.start()
    >>> thread.join()
    >>> _ = threading.stack_size(0)  # later threads are ordinary ones

    """
    asked = main_bytes(stack)
    size, reason = thread_bytes(asked)
    if not size or (stack != "auto" and size < asked):
        raise VrangeError(
            f"threads can't have stacks of {format_bytes(asked)}: {reason or 'too large here'}"
        )
    try:
        _start_with(asked, size)
    except OSError as error:
        raise VrangeError(f"threads can't be made deep: {error}") from None
