"""The native account that counts an arena, a cache or an array."""

from __future__ import annotations

import warnings
import weakref
from functools import cache
from typing import Any

from vrange._core import ffi, lib
from vrange._counters.stats import AccountStats, account_stats
from vrange._printable import printable

NAME_BYTES_MOST = lib.VRANGE_NAME_BYTES - 1


def checked_name(name: object) -> str:
    """Return `name` if it can label metrics.

    It must be a string of 1 to 63 bytes in UTF-8, without control characters.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {name!r}")
    size = len(name.encode(errors="replace"))
    if not 0 < size <= NAME_BYTES_MOST or not name.isprintable():
        raise ValueError(
            f"name must be 1 to {NAME_BYTES_MOST} bytes of printable characters, not {name!r}"
        )
    return name


@cache
def warn_if_unseen() -> None:
    """Warn, once a process, if the counters can't be read from outside."""
    refusal = lib.vrange_segment_refusal()
    if refusal != ffi.NULL:
        why = printable(ffi.string(refusal).decode(errors="replace"))
        warnings.warn(
            "vrange counts in memory of its own: `vrange top`, `vrange export` and other workers "
            f"of this service don't see this process ({why})",
            RuntimeWarning,
            stacklevel=2,
        )


class Account:
    """Counters under a name. They close when this object is collected, so users must hold it."""

    def __init__(self, name: str, kind: int) -> None:
        self.name = checked_name(name)
        self.kind = kind
        self.pointer: Any = lib.vrange_account_open(self.name.encode(), kind)
        if self.pointer == ffi.NULL:
            raise MemoryError("no memory for an account")
        warn_if_unseen()
        self.address = int(ffi.cast("uintptr_t", self.pointer))
        self._finalizer = weakref.finalize(self, lib.vrange_account_close, self.pointer)
        self._finalizer.atexit = False

    def read(self) -> AccountStats:
        """Return a snapshot of the counters."""
        counters = ffi.new("vrange_account_counters *")
        lib.vrange_account_read(self.pointer, counters)
        return account_stats(counters)
