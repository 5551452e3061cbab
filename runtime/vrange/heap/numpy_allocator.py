"""NumPy's array data from vrange's heap: freed blocks are used again, or are the kernel's."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from vrange._core import ffi, lib, numpy_handler
from vrange.errors import VrangeError
from vrange.numpy_core import numpy_core
from vrange.reserve import ensure_reserve
from vrange.sizes import format_bytes

_OURS = "vrange"
_NUMPYS_OWN = "default_allocator"


@dataclass(frozen=True)
class HeapInfo:
    """What the heap has for array data, in bytes but for `blocks`.

    `used_bytes` are in `blocks` that arrays have; `idle_bytes` were freed and the kernel has not
    been told yet; `offered_bytes` were freed and it may have taken them. `resident_bytes` is the
    memory behind all of it now, `trimmed_bytes` what `vrange.heap.trim` ever gave back.
    """

    blocks: int
    reserved_bytes: int
    used_bytes: int
    idle_bytes: int
    offered_bytes: int
    resident_bytes: int
    trimmed_bytes: int


def info() -> HeapInfo:
    """What the heap has now; all zeros before the first `use_for_numpy`."""
    found = ffi.new("vrange_heap_info *")
    lib.vrange_heap_read(found)
    return HeapInfo(*(getattr(found, name) for name in HeapInfo.__dataclass_fields__))


class use_for_numpy:
    """From now on NumPy's array data of 64 KiB and more comes from vrange's heap.

    A block that is freed stays as it is for about a tenth of a second, and the next array of its
    size gets it with no page fault. Then the kernel is told that it may have it (MADV_FREE), before
    any cached value, and at once when memory is short. So temporaries cost what `out=` costs, and
    what nobody uses is not held. Smaller blocks are NumPy's own allocator's, as before.

    Called plainly it stays on; as a context manager, or by `close`, the handler from before comes
    back. Arrays keep their memory either way. NumPy keeps its handler in a context variable: the
    call holds for this thread, or this task and the tasks made in it. Other threads: give it to an
    executor, `ThreadPoolExecutor(initializer=vrange.heap.use_for_numpy)`, or pass `new_threads`.

    Parameters
    ----------
    new_threads : every thread that `threading` starts from now on begins with it, too. This wraps
        a method of `threading.Thread` until the last such use is closed.
    replace : another handler than NumPy's own is in use here, and is to be replaced.

    Raises ImportError without NumPy, VrangeError where it is older than 1.22, where another handler
    is in use and `replace` is not given, and OSError where no address space is to be had. Huge
    pages are asked for where NumPy does (`NUMPY_MADVISE_HUGEPAGE`). In the child of a fork it goes
    on; arrays of the parent are there copied on write, as all memory is.

    Examples
    --------
    >>> import numpy as np, vrange.heap
    >>> with vrange.heap.use_for_numpy():
    ...     total = float((np.ones(100_000) * 2 + 1).sum())
    >>> total
    300000.0

    Source: NEP 49, https://numpy.org/neps/nep-0049.html

    """

    def __init__(self, *, new_threads: bool = False, replace: bool = False) -> None:
        connect()
        current = numpy_handler.name(numpy_handler.get())
        if current not in (_OURS, _NUMPYS_OWN) and not replace:
            raise VrangeError(
                f"NumPy's arrays are allocated by {current!r} here, which vrange does not know: "
                "pass replace=True to have vrange allocate new ones instead"
            )
        self._before: Any = numpy_handler.set(None)
        self._thread = threading.get_ident()
        self._new_threads = new_threads
        if new_threads:
            _begin_with_it()

    def close(self) -> None:
        """Brings the handler from before back, in this context. A second call does nothing.

        RuntimeError, and nothing changes, on another thread than the one that made it, or where the
        handler of this context is not vrange's any more: somebody else's that was set since stays.
        """
        if self._before is None:
            return
        if threading.get_ident() != self._thread:
            raise RuntimeError("use_for_numpy must be closed on the thread that called it")
        current = numpy_handler.name(numpy_handler.get())
        if current != _OURS:
            raise RuntimeError(
                f"NumPy's arrays are allocated by {current!r} here, in another context than that "
                "of use_for_numpy or since somebody else set it: it is left as it is"
            )
        numpy_handler.set(self._before)
        self._before = None
        if self._new_threads:
            _begin_with_it_no_more()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        now = info()
        state = "closed" if self._before is None else "in use"
        return (
            f"<vrange.heap.use_for_numpy, {state}: {now.blocks} blocks of "
            f"{format_bytes(now.used_bytes)}, {format_bytes(now.idle_bytes)} idle, "
            f"{format_bytes(now.offered_bytes)} offered>"
        )


@functools.cache
def connect() -> None:
    """Finds NumPy's functions. Raises as `use_for_numpy` does."""
    try:
        import numpy
    except ImportError as error:
        raise ImportError(
            "use_for_numpy needs NumPy, which is an extra: pip install 'vrange[numpy]'"
        ) from error
    core = numpy_core()
    ensure_reserve()  # else nobody knows the memory limit, near which all is offered at once
    refusal = numpy_handler.connect(core._ARRAY_API)
    if refusal is not None:
        raise VrangeError(f"NumPy {numpy.__version__} can't be used: {refusal}")
    wants_huge_pages = getattr(core, "_get_madvise_hugepage", lambda: True)
    numpy_handler.use_huge_pages(bool(wants_huge_pages()))


# ---- new threads ---------------------------------------------------------------------------------

_lock = threading.Lock()
_wishes = 0
_plain: Callable[[threading.Thread], None] | None = None


def _begin_with_it() -> None:
    global _wishes, _plain
    with _lock:
        _wishes += 1
        if _plain is not None:
            return
        # What runs in the new thread before run(), which subclasses may have overridden.
        plain = _plain = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

        @functools.wraps(plain)
        def bootstrap(self: threading.Thread) -> None:
            if _wishes:
                numpy_handler.set(None)
            plain(self)

        threading.Thread._bootstrap_inner = bootstrap  # type: ignore[attr-defined]
        bootstrap.vrange = True  # type: ignore[attr-defined]


def _begin_with_it_no_more() -> None:
    global _wishes, _plain
    with _lock:
        _wishes -= 1
        if _wishes:
            return
        # Somebody may have wrapped it since; then ours stays inside of theirs and does nothing.
        current = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]
        if getattr(current, "vrange", False):
            threading.Thread._bootstrap_inner = _plain  # type: ignore[attr-defined]
            _plain = None
