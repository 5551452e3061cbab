"""Arrow's buffers come from malloc where vrange's heap serves it.

By itself, Arrow allocates from a mimalloc of its own. What one thread has freed there, no other
thread can return, and Arrow's own threads are out of reach altogether: a table that was deleted
stays resident for as long as the program runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vrange._when_imported import when_imported

__all__ = ["allocate_by_malloc"]

_MODULE = "pyarrow"
_VARIABLE = (
    "ARROW_DEFAULT_MEMORY_POOL"  # Arrow's own; read once, when its default pool is first used
)


def allocate_by_malloc(tell: Callable[[str], None]) -> str:
    """Let Arrow allocate by malloc once the program imports it. Return what there is to report.

    A choice of the program's user stays. `tell` gets the same report when Arrow is imported.
    """
    if _VARIABLE in os.environ:
        return f"off: {_VARIABLE} is {os.environ[_VARIABLE]!r}"
    if _MODULE in sys.modules:
        return "off: it was imported before"
    when_imported(_MODULE, lambda: tell("on"), _by_malloc)
    return "ready, for pyarrow"


@contextmanager
def _by_malloc() -> Iterator[None]:
    # Only while it is imported: processes that the program starts do not have vrange's malloc.
    os.environ[_VARIABLE] = "system"
    try:
        yield
        sys.modules[_MODULE].default_memory_pool()  # reads the variable
    finally:
        os.environ.pop(_VARIABLE, None)
