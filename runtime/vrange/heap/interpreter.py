"""The interpreter's own allocator (pymalloc), trimmed where the layout of its memory is known.

pymalloc returns an arena of 1 MiB only when nothing in it is used any more, so a few objects that
live on keep all the memory that a program ever had. What they do not use can be given back all the
same: native/pymalloc_trim.c says how, and why it is safe. As it relies on how certain versions of
CPython lay out their memory, it is off until `enable` is called.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass

from vrange._core import pymalloc
from vrange.errors import VrangeError

VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14), (3, 15))

VARIABLE = "VRANGE_HEAP_INTERPRETER"  # has it on as soon as vrange is imported

_TAILS, _HOLES = 1, 2
_enabled = False


@dataclass(frozen=True)
class Status:
    """Whether the interpreter's allocator is trimmed, why not, and the arenas that are known.

    `arenas` of 1 MiB each are the calling interpreter's; `other_arenas` are those of interpreters
    with a GIL of their own, which a trim leaves alone. `allocator` is None where something, as
    tracemalloc, stands before it.
    """

    enabled: bool
    refusal: str | None
    allocator: str | None
    arenas: int
    other_arenas: int


def refusal() -> str | None:
    """Why this interpreter's allocator can't be trimmed; None where it can."""
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in VERSIONS:
        first, last = (".".join(map(str, version)) for version in (VERSIONS[0], VERSIONS[-1]))
        return f"its layout is known of CPython {first} to {last}, and this is {sys.version}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "the free-threaded interpreter allocates with mimalloc, not pymalloc"
    if "pymalloc-hugepages" in str(sysconfig.get_config_var("CONFIG_ARGS")):
        return "this interpreter was built with arenas of 2 MiB (--with-pymalloc-hugepages)"
    if hasattr(sys, "gettotalrefcount"):
        return "this is a debug build, which puts marks around every object"
    name = pymalloc.allocator() or os.environ.get("PYTHONMALLOC", "pymalloc")
    if name != "pymalloc":
        return f"the allocator in use is {name!r}, not pymalloc (PYTHONMALLOC, or -X dev)"
    return None


def enable() -> None:
    """Lets `vrange.heap.trim(deep=True)` give back what the interpreter's allocator doesn't use.

    From now on the arenas that pymalloc allocates are noted; those from before are not known and
    stay as they are, so call it as early as possible, or set VRANGE_HEAP_INTERPRETER=1, which has
    it on when vrange is imported. A second call does nothing; `disable` takes it back.

    Raises VrangeError, with the reason, where this interpreter does not allow it: other versions
    than 3.11 to 3.15, free-threaded and debug builds, `PYTHONMALLOC` other than pymalloc, and any
    whose objects are not laid out as expected, which is tried. Any thread may call it, of the main
    interpreter. The child of a fork inherits it. Arenas of other interpreters are left alone.

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
    """Has trims leave the interpreter's allocator alone from now on, in all threads.

    Arenas are noted all the same: pymalloc calls what it was given until the process ends, also to
    free. So `enable` has all of them again.

    >>> import vrange.heap
    >>> vrange.heap.interpreter.disable()
    >>> vrange.heap.interpreter.status().enabled
    False
    """
    global _enabled
    _enabled = False


def status() -> Status:
    """Tells whether the interpreter's allocator is trimmed, and what is known of it.

    >>> import vrange.heap
    >>> vrange.heap.interpreter.status().arenas >= 0
    True
    """
    arenas, others = pymalloc.arenas()
    return Status(_enabled, refusal(), pymalloc.allocator(), arenas, others)


def enable_if_asked() -> None:
    """Does what VRANGE_HEAP_INTERPRETER says; one line on stderr where it can't be."""
    if os.environ.get(VARIABLE, "") in ("", "0"):
        return
    try:
        enable()
    except VrangeError as error:
        sys.stderr.write(f"vrange: {VARIABLE}: {error}\n")


def is_enabled() -> bool:
    """Whether `enable` was called, and `disable` was not since."""
    return _enabled


def clear_caches() -> None:
    """Empties what the interpreter keeps to look attributes up; it fills again by itself."""
    # The general one is there from 3.13 on, and the other then says that it is deprecated.
    clear = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache
    clear()


def trim(*, holes: bool) -> tuple[int, str | None]:
    """Gives back free pools and what lies behind the last object of others; the bytes, and what
    was left alone.

    `holes`: also whole pages between objects. Those are lost to their pool until its last object
    is gone, so that a program which allocates as much again needs more pools than before.
    """
    given = sweep(holes)
    return (0, given) if isinstance(given, str) else (given, left_alone())


def sweep(holes: bool) -> int | str:
    """The bytes that `trim` gives back, or why there are none. Makes no container (sweep.py)."""
    if not _enabled:
        return refusal() or "not enabled: call vrange.heap.interpreter.enable(), and early"
    return pymalloc.sweep(_HOLES if holes else _TAILS)


def left_alone() -> str | None:
    """What the last trim of this process's interpreter did not touch, and why."""
    others, odd = pymalloc.left()
    left = []
    if odd:
        left.append(f"{odd} arenas that are not laid out as expected")
    if others:
        left.append(f"{others} arenas of other interpreters")
    return f"left alone: {' and '.join(left)}" if left else None
