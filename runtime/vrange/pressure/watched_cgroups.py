"""The files that the native watcher reads: those of each cgroup around the process."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrange._cgroup.limits import MemoryPlace, memory_places
from vrange._cgroup.tree import V2
from vrange._core import ffi, lib

__all__ = ["Places"]


def _readable(file: Path) -> str | None:
    """Return why it can't be read, or None if it can."""
    try:
        file.read_bytes()
    except OSError as error:
        return error.strerror or str(error)
    return None


@dataclass
class Places:
    """The watched directories, in the native side's order.

    `refused` maps directories that can't be watched to the reason. A cgroup that can't be read is
    left out with a RuntimeWarning, because a limit there would not be noticed.
    """

    proc_self: Path
    directories: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def tell(self) -> None:
        """Find the process's cgroups, and pass them to the native side.

        Raise OSError if a cgroup is removed meanwhile, several times in a row.
        """
        for turn in range(5):
            places, kept = self._find()
            result = lib.vrange_pressure_places(places, len(places))
            del kept
            if result == 0:
                return
            if turn == 4:
                raise OSError(-result, f"{os.strerror(-result)}: {self.directories}")

    def name(self, place: int) -> str:
        """Return the name of a place."""
        known = 0 <= place < len(self.directories)
        return self.directories[place] if known else "machine"

    def _find(self) -> tuple[Any, list[Any]]:
        found: list[MemoryPlace] = []
        refused = {}
        for place in memory_places(proc_self=self.proc_self):
            files = [place.files.usage, *place.files.limits]
            present = [name for name in files if (place.directory / name).exists()]
            why = [
                f"{name}: {problem}"
                for name in present
                if (problem := _readable(place.directory / name)) is not None
            ]
            if why:
                refused[str(place.directory)] = "; ".join(why)
            elif len(found) < lib.VRANGE_PRESSURE_PLACES:
                found.append(place)
            else:
                refused[str(place.directory)] = "too many nested cgroups"
        for directory in refused.keys() - self.refused.keys():
            warnings.warn(
                f"memory pressure in {directory} is not watched ({refused[directory]}), so a limit "
                "there can't be noticed in time",
                RuntimeWarning,
                stacklevel=4,
            )
        places = ffi.new("vrange_pressure_place[]", len(found))
        kept: list[Any] = []  # holds the memory that the structs point to

        def path_of(directory: Path, name: str) -> Any:
            kept.append(ffi.new("char[]", os.fsencode(directory / name)))
            return kept[-1]

        for native, place in zip(places, found, strict=True):
            native.usage = path_of(place.directory, place.files.usage)
            native.whole_tree = place.limits_above is not None
            native.stat = path_of(place.directory, "memory.stat")
            if place.files is V2:
                native.stalls = path_of(place.directory, "memory.pressure")
            for number, name in enumerate(place.files.limits):
                native.limits[number] = path_of(place.directory, name)
        self.directories = [str(place.directory) for place in found]
        self.refused = refused
        return places, kept
