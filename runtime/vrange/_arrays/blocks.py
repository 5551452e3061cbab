"""The blocks of one volatile array: pin, fill and discard them."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from vrange._core import ffi, hit, lib
from vrange._counters.account import Account
from vrange._ranges.address_space import address_space_left
from vrange._ranges.capabilities import capabilities
from vrange._ranges.reserve import ensure_reserve
from vrange.errors import ArenaFullError, RegenerationError, VrangeError
from vrange.fills.base import Regenerator
from vrange.sizes import format_bytes

if TYPE_CHECKING:
    import numpy as np

PutBytes = Callable[[int, "np.ndarray[Any, np.dtype[np.uint8]]"], None]

_LARGE_BYTES = 32 << 20  # less is pinned without asking whether it is free
_NBYTES_MOST = 1 << 62  # more than any address space


def _close(native: Any, account: Account, regenerator: Regenerator | None) -> None:
    lib.vrange_array_close(native)


class Blocks:
    """A native array of `nbytes` bytes, freed when its last user is gone.

    Its users are this object and the buffers from it.

    Parameters
    ----------
    nbytes, block_bytes : int
        The size of the array and of its blocks.
    account : Account
        Counts its bytes and requests.
    regenerator : Regenerator or None
        Fills inside a touch, and at a pin too unless `put_bytes` is given.
    put_bytes : callable or None
        `put_bytes(offset, out)` fills blocks that are pinned. Its exceptions become
        RegenerationError.

    """

    def __init__(
        self,
        nbytes: int,
        block_bytes: int,
        account: Account,
        regenerator: Regenerator | None,
        put_bytes: PutBytes | None,
    ) -> None:
        self.nbytes = nbytes
        self.block_bytes = block_bytes
        self._account = account
        self._put_bytes = put_bytes
        if nbytes > _NBYTES_MOST:
            self._raise_full()
        capabilities()
        ensure_reserve()
        pointer = ffi.new("vrange_array **")
        function = ffi.NULL if regenerator is None else regenerator.function
        context = ffi.NULL if regenerator is None else regenerator.context
        result = lib.vrange_array_open(
            nbytes, block_bytes, function, context, account.pointer, pointer
        )
        if result == -errno.ENOMEM:
            self._raise_full()
        if result == -errno.EMFILE:
            raise VrangeError(
                f"array {account.name!r} can't be opened: this process has as many as are possible"
            )
        if result < 0:
            raise VrangeError(f"array {account.name!r} can't be opened: {os.strerror(-result)}")
        self._native = pointer[0]
        self._number = int(ffi.cast("uintptr_t", self._native))
        # The regenerator's context and the account are used until the array is closed.
        finalizer = weakref.finalize(self, _close, self._native, account, regenerator)
        finalizer.atexit = False

    def buffer(self) -> hit.Lease:
        """Return the whole array, read-only and not pinned: touching a lost block refills it."""
        lib.vrange_refault_arm()
        return hit.adopt_blocks(self._number, 0, 0, 0, self.nbytes, self)

    def pinned(self, low: int, high: int) -> hit.Lease:
        """Return bytes `low` to `high`, filled, and pinned as long as the buffer lives."""
        lib.vrange_refault_arm()
        room = self._room_for(high - low)
        first = low // self.block_bytes
        count = max(0, -(-high // self.block_bytes) - first)
        by_python = self._put_bytes is not None
        missing = ffi.new("unsigned char[]", max(1, count)) if by_python else ffi.NULL
        failed = ffi.new("size_t *")
        result = lib.vrange_array_pin(self._native, first, count, missing, failed)
        if result < 0:
            self._raise(result, failed[0])
        lease = hit.adopt_blocks(self._number, first, count, low, high - low, self)
        if by_python:
            for i in range(count):
                if missing[i]:
                    self._put(first + i)
        room.release()
        return lease

    def _room_for(self, nbytes: int) -> hit.Room:
        """Reserve what pinning so much will take. The kernel would end a process that has no room.

        What is resident already needs none; where it is not in the part to be pinned, the kernel
        can take it instead.
        """
        room = hit.Room()
        if nbytes < _LARGE_BYTES:
            return room
        try:
            room.hold(max(0, nbytes - self.resident_bytes))
        except MemoryError:
            raise ArenaFullError(
                f"{format_bytes(nbytes)} of array {self._account.name!r} can't be pinned at once: "
                "less memory is free. Pin smaller parts; tofile() and np.save() write by parts"
            ) from None
        return room

    def _put(self, block: int) -> None:
        import numpy as np

        assert self._put_bytes is not None
        offset = block * self.block_bytes
        content = np.empty(min(self.block_bytes, self.nbytes - offset), np.uint8)
        try:
            self._put_bytes(offset, content)
        except RegenerationError:
            raise
        except Exception as error:
            raise RegenerationError(
                f"the fill of array {self._account.name!r} failed for block {block}"
            ) from error
        result = lib.vrange_array_put(self._native, block, ffi.from_buffer(content))
        if result < 0:
            self._raise(result, block)

    def _raise(self, result: int, block: int) -> NoReturn:
        which = f"block {block} of array {self._account.name!r}"
        why = os.strerror(-result)
        if lib.vrange_rung() != lib.VRANGE_RUNG_REFAULT:
            raise RegenerationError(
                f"{which} can't be put back: the kernel or a sandbox now refuses what the refault "
                f"rung needs, userfaultfd and MADV_POPULATE_WRITE ({why})"
            )
        if result == -errno.ENOMEM:
            raise ArenaFullError(f"no memory for {which}")
        if result == -errno.EFAULT:
            raise RegenerationError(
                f"{which} can't be pinned: its pages were missing each time after they had been "
                "put back, so MADV_POPULATE_WRITE fails here, or something else takes them"
            )
        raise RegenerationError(f"{which} can't be put back: {why}")

    def _raise_full(self) -> NoReturn:
        raise ArenaFullError(
            f"{format_bytes(self.nbytes)} of address space for array {self._account.name!r} is not "
            f"available: {address_space_left()}"
        )

    def discard(self) -> None:
        """Make the kernel reclaim every block that is not pinned."""
        result = lib.vrange_array_discard(self._native)
        if result == -errno.EINVAL:
            raise VrangeError(
                f"array {self._account.name!r} can't be discarded: this process locked its memory "
                "(mlockall), and before Linux 5.18 the kernel does not discard locked memory"
            )
        if result < 0:
            raise VrangeError(
                f"array {self._account.name!r} can't be discarded: {os.strerror(-result)}"
            )

    @property
    def resident_bytes(self) -> int:
        """The bytes that are in memory now."""
        lib.vrange_refault_arm()
        return int(lib.vrange_array_resident_bytes(self._native))

    @property
    def refaults(self) -> int:
        """The touches of lost blocks that were answered."""
        return int(lib.vrange_array_refaults(self._native))

    @property
    def refilled_bytes(self) -> int:
        """The bytes that touches and pins have put back."""
        return int(lib.vrange_array_refilled_bytes(self._native))
