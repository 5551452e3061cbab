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

from vrange._core import pymalloc
from vrange.errors import VrangeError

VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14), (3, 15))

_TAILS, _HOLES = 1, 2
_SLICE_NS = 2_000_000  # how long other threads may wait for the GIL


def refusal() -> str | None:
    """Why this interpreter's allocator can't be trimmed; None where it can."""
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in VERSIONS:
        first, last = (".".join(map(str, version)) for version in (VERSIONS[0], VERSIONS[-1]))
        return f"its layout is known of CPython {first} to {last}, and this is {sys.version}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "the free-threaded interpreter allocates with mimalloc, not pymalloc"
    if hasattr(sys, "gettotalrefcount"):
        return "this is a debug build, which puts marks around every object"
    name = pymalloc.allocator() or os.environ.get("PYTHONMALLOC", "pymalloc")
    if name != "pymalloc":
        return f"the allocator in use is {name!r}, not pymalloc (PYTHONMALLOC, or -X dev)"
    return None


def enable() -> None:
    """Lets `vrange.heap.trim(deep=True)` give back what the interpreter's allocator doesn't use.

    From now on the arenas that pymalloc allocates are noted; those from before are not known and
    stay as they are, so call it as early as possible. It is for good: pymalloc goes on calling what
    it was given until the process ends. A second call does nothing.

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


def is_enabled() -> bool:
    """Whether `enable` was called."""
    return pymalloc.is_watching()


def trim(*, holes: bool) -> tuple[int, str | None]:
    """Gives back free pools and what lies behind the last object of others; the bytes, and what
    was left alone.

    `holes`: also whole pages between objects. Those are lost to their pool until its last object
    is gone, so that a program which allocates as much again needs more pools than before.
    """
    _, others, odd, *given_back, _ = pymalloc.trim(_HOLES if holes else _TAILS, _SLICE_NS)
    left = []
    if odd:
        left.append(f"{odd} arenas that are not laid out as expected")
    if others:
        left.append(f"{others} arenas of other interpreters")
    return sum(given_back), f"left alone: {' and '.join(left)}" if left else None
