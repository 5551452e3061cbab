"""Trimming of the interpreter's own allocator (pymalloc), for memory layouts that are known.

pymalloc frees an arena of 1 MiB only when nothing in it is used any more, so a few surviving
objects keep all the memory that a program ever had. The unused memory between them can be returned
all the same: pymalloc_trim.c explains how, and why that is safe. It relies on how certain
versions of CPython lay out their memory, so it is off until `enable` is called.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass

from vrange._core import pymalloc
from vrange.errors import VrangeError

VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14), (3, 15))

VARIABLE = "VRANGE_HEAP_INTERPRETER"  # enables it as soon as vrange is imported

_enabled = False


@dataclass(frozen=True)
class Status:
    """Whether the interpreter's allocator is trimmed, why not, and which arenas are known.

    Attributes
    ----------
    enabled : bool
        Whether `enable` was called, and `disable` was not called since.
    refusal : str or None
        Why this interpreter's allocator can't be trimmed, or None if it can.
    allocator : str or None
        The allocator in use; None if another layer, such as tracemalloc, lies above it.
    arenas : int
        The known arenas of 1 MiB of the calling interpreter.
    other_arenas : int
        The known arenas of interpreters with a GIL of their own. A trim leaves them alone.

    """

    enabled: bool
    refusal: str | None
    allocator: str | None
    arenas: int
    other_arenas: int


def refusal() -> str | None:
    """Return why this interpreter's allocator can't be trimmed, or None if it can."""
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in VERSIONS:
        first, last = (".".join(map(str, version)) for version in (VERSIONS[0], VERSIONS[-1]))
        return f"its layout is known of CPython {first} to {last}, and this is {sys.version}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "the free-threaded interpreter allocates with mimalloc, not pymalloc"
    if "pymalloc-hugepages" in str(sysconfig.get_config_var("CONFIG_ARGS")):
        return pymalloc.LARGE_ARENAS
    if hasattr(sys, "gettotalrefcount"):
        return "this is a debug build, which adds marks around every object"
    name = pymalloc.allocator() or os.environ.get("PYTHONMALLOC", "pymalloc")
    if name != "pymalloc":
        return f"the allocator in use is {name!r}, not pymalloc (PYTHONMALLOC, or -X dev)"
    return None


def enable() -> None:
    """Let `vrange.heap.trim(deep=True)` return what the interpreter's allocator doesn't use.

    From now on, vrange records the arenas that pymalloc allocates. Arenas from before are unknown
    and stay as they are. So call this as early as possible, or set VRANGE_HEAP_INTERPRETER=1, which
    enables it when vrange is imported. A second call does nothing. `disable` reverses it.

    Raises
    ------
    VrangeError
        If this interpreter does not allow it; the message gives the reason. That holds for versions
        other than 3.11 to 3.15, free-threaded and debug builds, a `PYTHONMALLOC` other than
        pymalloc, and any interpreter that does not lay out objects as expected, which is tested.

    Notes
    -----
    Any thread of the main interpreter may call it. The child of a fork inherits it. Arenas of other
    interpreters are left alone.

    Examples
    --------
    >>> import vrange.heap
    >>> vrange.heap.interpreter.enable()
    >>> trimmed = vrange.heap.trim(deep=True)

    """
    reason = refusal() or pymalloc.watch()
    if reason is not None:
        raise VrangeError(f"the interpreter's allocator can't be trimmed: {reason}")
    global _enabled
    _enabled = True


def disable() -> None:
    """Make trims leave the interpreter's allocator alone from now on, in all threads.

    Arenas are recorded all the same, because pymalloc calls vrange's arena provider until the
    process ends, also to free arenas. So a later `enable` knows all of them.

    Examples
    --------
    >>> import vrange.heap
    >>> vrange.heap.interpreter.disable()
    >>> vrange.heap.interpreter.status().enabled
    False

    """
    global _enabled
    _enabled = False


def status() -> Status:
    """Return whether the interpreter's allocator is trimmed, and what is known of it.

    Returns
    -------
    Status
        Its state now. Its fields are described there.

    Examples
    --------
    >>> import vrange.heap
    >>> vrange.heap.interpreter.status().arenas >= 0
    True

    """
    arenas, others = pymalloc.arenas()
    return Status(_enabled, refusal(), pymalloc.allocator(), arenas, others)


def enable_if_asked() -> None:
    """Do what VRANGE_HEAP_INTERPRETER says; if that fails, write one line to stderr."""
    if os.environ.get(VARIABLE, "") in ("", "0"):
        return
    try:
        enable()
    except VrangeError as error:
        with suppress(Exception):  # standard error may be closed (None), or full
            sys.stderr.write(f"vrange: {VARIABLE}: {error}\n")


def is_enabled() -> bool:
    """Return whether `enable` was called, and `disable` was not called since."""
    return _enabled


def clear_caches() -> None:
    """Empty the interpreter's caches of looked-up attributes; they fill again by themselves."""
    # From 3.13 on there is a general function, and the older one warns that it is deprecated.
    clear = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache
    clear()


def trim(*, holes: bool) -> tuple[int, str | None]:
    """Return free pools, and what lies behind the last object of others, to the system.

    Parameters
    ----------
    holes : bool
        Also discard whole pages between objects. Their pool loses them until its last object is
        freed, so a program that allocates as much again then needs more pools than before.

    Returns
    -------
    tuple[int, str or None]
        The bytes that were returned, and what was left alone.

    """
    given = sweep(holes)
    return (0, given) if isinstance(given, str) else (given, left_alone())


def sweep(holes: bool) -> int | str:
    """Return the bytes that `trim` would return, or why there are none.

    Makes no container.
    """
    if not _enabled:
        return refusal() or "not enabled: call vrange.heap.interpreter.enable(), and early"
    return pymalloc.sweep(pymalloc.HOLES if holes else pymalloc.TAILS)


def unused(*, holes: bool) -> int | str:
    """Return the bytes that `trim` would return, or why there are none. Changes nothing."""
    if not _enabled:
        return refusal() or "not enabled: call vrange.heap.interpreter.enable(), and early"
    return pymalloc.unused(pymalloc.HOLES if holes else pymalloc.TAILS)


def left_alone() -> str | None:
    """Return what the last trim of this interpreter did not touch, and why."""
    others, odd = pymalloc.left()
    left = []
    if odd:
        left.append(f"{odd} arenas that are not laid out as expected")
    if others:
        left.append(f"{others} arenas of other interpreters")
    return f"left alone: {' and '.join(left)}" if left else None
