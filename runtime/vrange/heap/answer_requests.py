"""Answers to requests of other processes of this user: to trim, and to report what holds memory.

_counters/requests.py finds a request and writes the answer; _counters/ask.py is the other side.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from vrange._core import lib
from vrange.heap.holding import holding
from vrange.heap.trim import Deep, trim

__all__ = ["answer"]

_DEEP: dict[str, Deep] = {"light": False, "deep": True, "holes": "holes"}


def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Do what a request asks for, and return the answer; both are JSON objects.

    Raises
    ------
    ValueError
        If this version does not know the request.

    """
    what, deep = request.get("what"), _DEEP.get(str(request.get("depth", "deep")))
    if deep is None:
        raise ValueError(f"depth must be light, deep or holes, not {request.get('depth')!r}")
    if what == "why":
        return holding(deep)
    if what == "trim":
        return _trim(deep, bool(request.get("collect")))
    raise ValueError(f"this vrange knows the requests trim and why, not {what!r}")


def _trim(deep: Deep, collect: bool) -> Mapping[str, Any]:
    before, began = int(lib.vrange_resident_bytes()), time.perf_counter()
    trimmed = trim(deep, collect=collect)
    return {
        "seconds": time.perf_counter() - began,
        "rss_before": before,
        "rss": int(lib.vrange_resident_bytes()),
        "returned": dict(trimmed.by_source),
        "refused": dict(trimmed.refused),
    }
