"""What the native side is told of the limits, so that it can read them by itself."""

from __future__ import annotations

import os
from typing import Any

from vrange._cgroup.limits import memory_places
from vrange._cgroup.tree import NO_LIMIT, read_words
from vrange._core import ffi, lib

__all__ = ["watch_limits"]


def watch_limits() -> None:
    """Pass the cgroups that limit this process now to the native side."""
    places = memory_places()[: lib.VRANGE_CGROUPS]
    cgroups = ffi.new("vrange_cgroup[]", len(places))
    kept = []  # holds the memory that the structs point to

    def path_of(name: str) -> Any:
        kept.append(ffi.new("char[]", os.fsencode(place.directory / name)))
        return kept[-1]

    for cgroup, place in zip(cgroups, places, strict=True):
        cgroup.usage = path_of(place.files.usage)
        cgroup.stat = path_of("memory.stat")
        for number, name in enumerate(place.files.limits):
            cgroup.limits[number] = path_of(name)
        above = read_words(place.limits_above) if place.limits_above is not None else {}
        cgroup.limit_above = above.get("hierarchical_memory_limit", NO_LIMIT)
    if lib.vrange_headroom_watch(cgroups, len(places)) < 0:
        lib.vrange_headroom_watch(cgroups, 0)  # the cgroups were removed, or can't be read
