"""What this process knows of a key of a shared cache (native/python/cache/known.h)."""

from __future__ import annotations

from vrange._core import hit
from vrange._service import stable_keys

__all__ = ["Known", "known_of"]

Known = hit.Known


def known_of(form: bytes) -> Known:
    """Return what is known of a key, from its form: nothing yet."""
    return Known(form, stable_keys.digest_of(form))
