"""VolatileArray: an ndarray whose pages the kernel may reclaim, and which refills where touched."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from vrange._arrays.arguments import (
    checked_block_bytes,
    checked_pin_index,
    checked_shape,
    extent_of,
    rows_of,
)
from vrange._arrays.as_ndarray import AsNdarray
from vrange._arrays.blocks import Blocks
from vrange._arrays.filled_once import filled_once, filled_once_if_room
from vrange._core import lib
from vrange._counters.account import Account
from vrange._ranges.capabilities import capabilities
from vrange.errors import VrangeError
from vrange.fills.base import NativeFill
from vrange.fills.python import Function, Python
from vrange.sizes import format_bytes

Array = np.ndarray[Any, Any]

_PART_BYTES = 16 << 20


class VolatileArray(AsNdarray):
    """An array of any size, of which spare memory holds what it can.

    The kernel reclaims its blocks whenever it needs memory. A touch of a lost block raises SIGBUS;
    vrange then puts the content back and lets the touch continue.

    With a fill from `vrange.fills`, `np.asarray(a)` is the whole array without a copy: a read-only
    ndarray for ufuncs, hashlib or a C library, never pinned. `a[...]` is a view of it.

    With a Python fill, content is put back at explicit accesses only. `a[1000:2000]` fills its
    blocks and pins them as long as the view lives. `np.asarray(a)` raises TypeError, and so does
    any other use that would touch the memory without going through this object.

    `a.pin(index)` fills and pins with any fill. Use it for speed, and before a system call gets a
    view: a touch of a lost block is answered, but a system call fails with EFAULT, or sends less.
    What gets the array itself (`np.save`, `a.tofile`, `file.write`, sockets) fills it first.

    Parameters
    ----------
    shape : int or tuple of int
        As for an ndarray. The order is C.
    dtype : dtype-like
        As for an ndarray. Object dtypes are refused.
    fill : NativeFill or callable
        Puts the content back; it must give the same content each time. Either one of
        `vrange.fills`, which run inside the touch, or a Python function `fill(start, out)`: `out`
        is a writable 1-D ndarray for the elements `start` to `start + len(out)` in C order. The
        function may return the number of elements that it wrote; None means all.
    block_bytes : int or str, default "64KiB"
        What is put back at a time: a power of two, from a page to 2 MiB.
    name : str, default "array"
        The label of its metrics.
    fault : {"native", "python"}, default "native"
        "python" lets a Python fill run inside a touch. The notes describe the danger.
    eager : bool, optional
        Whether to make an ordinary array, which is filled once and kept. By default it is one
        where this process lacks the refault rung, with one warning, if it fits into the memory
        that is left. False refuses that.

    Raises
    ------
    VrangeError
        If this process lacks the refault rung, and `eager` is False or the array does not fit.
    ArenaFullError
        If there is no address space for it, or (if `eager`) no memory.
    ValueError, TypeError
        If an argument is invalid.

    Notes
    -----
    `fault="python"` runs the function in the middle of any code that touched the array. The
    function must not take a lock that this code may hold; printing and logging take locks, too.
    Otherwise the thread deadlocks. Ctrl-C waits until the block is whole. If the function raises,
    it is called once more. If it raises again, the process ends with a message, because code that
    continued would compute with content that is not there.

    Any thread may touch an array. The child of a fork has a copy of its own; of an array that
    refills where it is touched, it starts with the pinned blocks. A thread that blocks
    SIGBUS may only use what is pinned, because the kernel ends the process when such a thread
    touches a lost block. If a native fill fails, a touch ends the process with a message; pin() and
    indexing raise RegenerationError.

    The mechanism is userfaultfd(2) with UFFD_FEATURE_SIGBUS, over memory offered with MADV_FREE.

    Examples
    --------
    >>> import vrange
    >>> with vrange.VolatileArray((1000, 1000), "f4", fill=vrange.fills.pattern(0.5)) as a:
    ...     float(np.asarray(a).sum())
    500000.0

    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        dtype: Any,
        *,
        fill: NativeFill | Function,
        block_bytes: int | str = "64KiB",
        name: str = "array",
        fault: Literal["native", "python"] = "native",
        eager: bool | None = None,
    ) -> None:
        # A dtype that is itself an array adds its dimensions, as in np.empty.
        elements: np.dtype[Any] = np.dtype(dtype)
        self._dtype: np.dtype[Any] = elements.base
        self._shape: tuple[int, ...] = (*checked_shape(shape), *elements.shape)
        if self._dtype.hasobject or self._dtype.itemsize == 0:
            raise TypeError(f"dtype must be of plain bytes, not {self._dtype!r}")
        self._block_bytes = checked_block_bytes(block_bytes)
        if fault not in ("native", "python"):
            raise ValueError(f'fault must be "native" or "python", not {fault!r}')
        if not isinstance(fill, NativeFill) and (isinstance(fill, type) or not callable(fill)):
            raise TypeError(
                "fill must be one of vrange.fills, such as vrange.fills.zero(), or a function, "
                f"not {fill!r}"
            )
        self._fill = fill
        self._name = name
        source = fill if isinstance(fill, NativeFill) else Python(fill, self._dtype, name)
        self._python = source if isinstance(source, Python) else None
        self._runs_in_touch = isinstance(fill, NativeFill) or fault == "python"
        self._account = Account(name, lib.VRANGE_KIND_ARRAY)
        self._eager: Array | None = None
        self._blocks: Blocks | None = None
        if eager:
            self._eager = filled_once(self._shape, self._dtype, source, self._block_bytes, name)
            return
        can = capabilities()
        if can.rung != "refault":
            why = can.refusals.get("refault", "not available")
            if eager is not None:
                raise VrangeError(
                    f"a VolatileArray needs the refault rung, which this process lacks ({why}); "
                    "eager=True makes an ordinary array, filled once"
                )
            self._eager = filled_once_if_room(
                self._shape, self._dtype, source, self._block_bytes, name, why
            )
            return
        regenerator, put = None, None
        if isinstance(fill, NativeFill):
            regenerator = fill.bind(self._dtype, self.nbytes, self._block_bytes)
        elif self._python is not None:
            # At an explicit access, Python calls the function, and its exception propagates.
            put = self._python.put
            regenerator = self._python.regenerator() if self._runs_in_touch else None
        # An array without elements still has an address.
        self._blocks = Blocks(
            max(1, self.nbytes), self._block_bytes, self._account, regenerator, put
        )

    # ---- attributes --------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's dimensions, as for an ndarray."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements, as for an ndarray."""
        return self._dtype

    @property
    def ndim(self) -> int:
        """The number of its dimensions, as for an ndarray."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self._shape)

    @property
    def nbytes(self) -> int:
        """The bytes of all elements, whether in memory or not."""
        return self.size * self._dtype.itemsize

    @property
    def name(self) -> str:
        """The label of this array's metrics."""
        return self._name

    @property
    def block_bytes(self) -> int:
        """The bytes that are put back at a time."""
        return self._block_bytes

    @property
    def resident_bytes(self) -> int:
        """The bytes that are in memory now."""
        return self.nbytes if self._eager is not None else self._open().resident_bytes

    @property
    def refaults(self) -> int:
        """The touches of lost blocks that were answered so far."""
        return 0 if self._eager is not None else self._open().refaults

    @property
    def refilled_bytes(self) -> int:
        """The bytes that touches, read-ahead and pins have put back so far."""
        return self.nbytes if self._eager is not None else self._open().refilled_bytes

    # ---- reading -----------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return the whole array, without a copy if the fill runs inside a touch."""
        if self._eager is None and not self._runs_in_touch:
            if not copy:
                raise TypeError(
                    f"array {self._name!r} is filled by a Python function, which does not run "
                    "where memory is touched: index it (a[1000:2000]), pin() a part, copy it with "
                    'np.array(a, copy=True), or pass fault="python" after reading what that means'
                )
            return self._copied().astype(self._dtype if dtype is None else dtype, copy=False)
        whole = self._unpinned()
        if dtype is not None and np.dtype(dtype) != self._dtype:
            if copy is False:
                raise ValueError(f"dtype {np.dtype(dtype)} needs a copy, but copy is False")
            return whole.astype(dtype)
        return whole.copy() if copy else whole

    def __getitem__(self, index: Any) -> Any:
        if self._eager is not None:
            return self._eager[index]
        if self._runs_in_touch:
            return self._unpinned()[index]
        rows = rows_of(index, self._shape)
        if rows is not None:
            return np.stack([self[row] for row in rows]) if rows else self._unpinned()[:0].copy()
        view = self._pinned_view(index)
        return view[()] if view.ndim == 0 else view

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("len() of an array of no dimensions")
        return self._shape[0]

    def __bytes__(self) -> bytes:
        return self._copied().tobytes()

    def __reduce__(self) -> tuple[Any, ...]:
        # By content: the process that unpickles it may lack the fill, or the machine for it.
        return (_unpickled, (self._copied(),))

    @contextmanager
    def pin(self, index: Any = ...) -> Iterator[Array]:
        """Fill and pin a part, and yield a view of it.

        Parameters
        ----------
        index : int, slice, or tuple of them
            The part, as in `a[index]`. The default is the whole array.

        Yields
        ------
        numpy.ndarray
            A view that is safe for system calls. The part stays pinned as long as the view, or a
            view of it, lives.

        Raises
        ------
        RegenerationError
            If a block can't be put back.

        """
        if self._eager is not None:
            yield self._eager[index]
            return
        yield self._pinned_view(index)

    def fill_ahead(self, index: Any = ...) -> None:
        """Put the content of a part back now, so that touching it soon costs nothing.

        Parameters
        ----------
        index : int, slice, or tuple of them
            The part, as in `a[index]`. The default is the whole array.

        """
        if self._eager is None:
            self._pinned_view(index)

    # ---- discarding and closing --------------------------------------------------------------

    def discard(self) -> None:
        """Make the kernel reclaim every block that is not pinned: for tests, or when in a hurry."""
        if self._eager is None:
            self._open().discard()

    def close(self) -> None:
        """Free the memory as soon as no view of it is left. Later uses raise ValueError."""
        self._blocks = None
        self._eager = None

    def __enter__(self) -> VolatileArray:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        what = f"shape={self._shape}, dtype={self._dtype}, fill={self._fill!r}"
        if self._eager is not None:
            return f"<VolatileArray {self._name!r}, eager, {what}>"
        if self._blocks is None:
            return f"<VolatileArray {self._name!r}, closed>"
        return (
            f"<VolatileArray {self._name!r}, {what}: {format_bytes(self.resident_bytes)} "
            f"of {format_bytes(self.nbytes)} resident>"
        )

    # ---- implementation ------------------------------------------------------------------------

    def _open(self) -> Blocks:
        if self._blocks is None:
            raise ValueError(f"array {self._name!r} is closed")
        return self._blocks

    def _unpinned(self) -> Array:
        if self._eager is not None:
            return self._eager
        buffer: Any = self._open().buffer()
        return np.ndarray(self._shape, self._dtype, buffer)

    def _pinned_view(self, index: Any) -> Array:
        checked_pin_index(index)
        # Indexing computes addresses and touches nothing.
        whole = self._unpinned()
        keep_dimensions = index if isinstance(index, tuple) else (index,)
        view = whole[(*keep_dimensions, ...)] if Ellipsis not in keep_dimensions else whole[index]
        if view.size == 0:
            return view
        start, low, high = extent_of(view, whole)
        lease: Any = self._open().pinned(low, high)
        return np.ndarray(view.shape, self._dtype, lease, start - low, view.strides)

    def _copied(self) -> Array:
        """Return all elements in ordinary memory, filled a part at a time."""
        out = np.empty(self._shape, self._dtype)
        if self._eager is not None or self._runs_in_touch:
            out[...] = self._unpinned()
            return out
        flat, at = out.reshape(-1), 0
        for part in self._parts():
            flat[at : at + part.size] = part
            at += part.size
        return out

    def _parts(self) -> Iterator[Array]:
        step = max(1, _PART_BYTES // self._dtype.itemsize)
        for at in range(0, self.size, step):
            count = min(step, self.size - at)
            if self._eager is not None:
                yield self._eager.reshape(-1)[at : at + count]
                continue
            low = at * self._dtype.itemsize
            lease: Any = self._open().pinned(low, low + count * self._dtype.itemsize)
            yield np.ndarray(count, self._dtype, lease)

    def _plain_bytes(self) -> Array:
        """Return all bytes, pinned, for a system call that reads them from this object."""
        if self._eager is not None:
            return self._eager.reshape(-1).view(np.uint8)
        lease: Any = self._open().pinned(0, self.nbytes)
        return np.frombuffer(lease, np.uint8) if self.nbytes else np.empty(0, np.uint8)


def _unpickled(content: Array) -> Array:
    content.flags.writeable = False
    return content
