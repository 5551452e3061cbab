"""The lookups of a shared cache that run natively (native/python/cache/shared_reads.c)."""

from __future__ import annotations

import pickle
from typing import Any

from vrange._core import hit
from vrange._service import blob
from vrange._service.known import Known
from vrange._service.near import NEAR_SHARE

__all__ = ["new_reads"]


def new_reads(core: hit.CacheCore, copies: bool) -> hit.SharedReads:
    """Return the lookups of a cache. With `copies` each caller gets a value of its own."""

    def decode(known: Known, stamp: int, data: bytes) -> Any:
        form, digest = known.form, known.digest
        return blob.value_in(data, stamp, digest, form, copies=copies, is_lent=False)

    return hit.SharedReads(core, decode, pickle.loads, NEAR_SHARE)
