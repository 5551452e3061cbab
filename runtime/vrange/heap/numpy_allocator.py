"""NumPy's array data from vrange's heap, which reuses freed blocks or offers them to the kernel."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import Any

from vrange._closing import Closing
from vrange._core import ffi, lib, numpy_handler
from vrange._numpy_table import numpy_core
from vrange._ranges.reserve import ensure_reserve
from vrange.errors import VrangeError
from vrange.sizes import format_bytes

_OURS = "vrange"
_NUMPYS_OWN = "default_allocator"


@dataclass(frozen=True)
class HeapInfo:
    """The blocks that the heap holds for array data. All fields but `blocks` are in bytes.

    Attributes
    ----------
    blocks : int
        The number of blocks that arrays use.
    reserved_bytes : int
        The reserved address space.
    used_bytes : int
        In blocks that arrays use.
    idle_bytes : int
        Freed, and not offered to the kernel yet.
    offered_bytes : int
        Freed and offered to the kernel, which may have reclaimed them.
    resident_bytes : int
        The memory behind all of these now.
    trimmed_bytes : int
        What `vrange.heap.trim` has returned so far.

    """

    blocks: int
    reserved_bytes: int
    used_bytes: int
    idle_bytes: int
    offered_bytes: int
    resident_bytes: int
    trimmed_bytes: int


def info() -> HeapInfo:
    """Return what the heap holds now.

    Returns
    -------
    HeapInfo
        Its figures; all are zero before the first `use_for_numpy`.

    """
    found = ffi.new("vrange_heap_info *")
    lib.vrange_heap_read(found)
    return HeapInfo(*(getattr(found, name) for name in HeapInfo.__dataclass_fields__))


def return_idle(enabled: bool = True) -> None:
    """Return freed blocks of the heap that have been idle for a second, instead of offering them.

    What is offered counts in the resident set (RSS) until the kernel needs memory. Use this where
    something judges the process by its RSS: `ps`, an alert, Dask's nanny. `vrange.set_limit` has
    the same effect.

    Parameters
    ----------
    enabled : bool, default True
        False restores the default: after a tenth of a second the blocks are offered to the kernel.

    Notes
    -----
    A block that is used again within a second still costs no page fault. One that is used again
    later does. The child of a fork inherits the setting.

    Examples
    --------
    >>> import vrange.heap
    >>> vrange.heap.return_idle()
    >>> vrange.heap.return_idle(False)

    """
    lib.vrange_heap_return_idle(enabled)
    if enabled:
        lib.vrange_heap_trim()  # what was offered before would stay


class use_for_numpy(Closing):
    """Allocate NumPy's array data of 64 KiB and more from vrange's heap, from now on.

    A freed block stays as it is for about a tenth of a second, and the next array of its size uses
    it without a page fault. After that, vrange offers it to the kernel (MADV_FREE), before any
    cached value; when memory is short, it offers the block at once. So temporaries cost as much as
    `out=` does, and unused memory is not held. NumPy's own allocator keeps serving smaller blocks.

    A plain call is permanent. As a context manager, or after `close`, the previous handler is
    restored. Arrays keep their memory either way. NumPy keeps its handler in a context variable, so
    the call applies to this thread, or to this task and the tasks created in it. For other threads,
    pass it to an executor, `ThreadPoolExecutor(initializer=vrange.heap.use_for_numpy)`, or use
    `new_threads`.

    Parameters
    ----------
    new_threads : bool, default False
        Whether all other threads and contexts use the heap as well, those that start later
        included: threads of any library, tasks of an event loop, and tasks that a framework runs in
        a context of its own, as Dask does. A context in which other code has set a handler keeps
        that one. It lasts until the last such use is closed.
    replace : bool, default False
        Whether to replace a handler other than NumPy's own that is in use here.

    Raises
    ------
    ImportError
        If NumPy is not installed.
    VrangeError
        If NumPy is older than 1.22, or if another handler is in use and `replace` is false.
    OSError
        If no address space can be reserved.

    Notes
    -----
    vrange asks for huge pages if NumPy does (`NUMPY_MADVISE_HUGEPAGE`). In the child of a fork the
    heap stays in use; arrays of the parent are copied on write there, as all memory is.

    References
    ----------
    NEP 49, https://numpy.org/neps/nep-0049.html

    Examples
    --------
    >>> import numpy as np, vrange.heap
    >>> with vrange.heap.use_for_numpy():
    ...     total = float((np.ones(100_000) * 2 + 1).sum())
    >>> total
    300000.0

    """

    def __init__(self, *, new_threads: bool = False, replace: bool = False) -> None:
        connect()
        current = numpy_handler.name(numpy_handler.get())
        if current not in (_OURS, _NUMPYS_OWN) and not replace:
            raise VrangeError(
                f"NumPy's arrays are allocated by {current!r} here, which vrange does not know: "
                "pass replace=True to allocate new ones with vrange instead"
            )
        self._before: Any = numpy_handler.set(None)
        self._thread = threading.get_ident()
        self._new_threads = new_threads
        if new_threads:
            numpy_handler.use_as_default(True)

    def close(self) -> None:
        """Restore the previous handler in this context. A second call does nothing.

        Raises
        ------
        RuntimeError
            On a thread other than the one that created it, or if this context's handler is no
            longer vrange's. Nothing changes then: a handler that other code has set since stays in
            use.

        """
        if self._before is None:
            return
        if threading.get_ident() != self._thread:
            raise RuntimeError("use_for_numpy must be closed on the thread that called it")
        current = numpy_handler.name(numpy_handler.get())
        if current != _OURS:
            raise RuntimeError(
                f"NumPy's arrays are allocated by {current!r} here. This context is not that of "
                "use_for_numpy, or other code has set a handler since, so it stays as it is"
            )
        numpy_handler.set(self._before)
        self._before = None
        if self._new_threads:
            numpy_handler.use_as_default(False)

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
    """Find NumPy's functions. Raise as `use_for_numpy` does."""
    try:
        import numpy
    except ImportError as error:
        raise ImportError(
            "use_for_numpy needs NumPy, which is an extra: pip install 'vrange[numpy]'"
        ) from error
    core = numpy_core()
    ensure_reserve()  # the reserve watches the memory limit; near the limit, it offers all at once
    refusal = numpy_handler.connect(core._ARRAY_API)
    if refusal is not None:
        raise VrangeError(f"NumPy {numpy.__version__} can't be used: {refusal}")
    wants_huge_pages = getattr(core, "_get_madvise_hugepage", lambda: True)
    numpy_handler.use_huge_pages(bool(wants_huge_pages()))
