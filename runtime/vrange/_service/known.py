"""What this process knows of a key of a shared cache (native/python/cache/known.h)."""

from __future__ import annotations

import hashlib

from vrange._core import hit, lib

__all__ = ["Known", "known_of"]

Known = hit.Known


def known_of(form: bytes) -> Known:
    """Return what is known of a key, from its form: nothing yet."""
    return Known(form, hashlib.blake2b(form, digest_size=lib.VRANGE_DIGEST_BYTES).digest())
