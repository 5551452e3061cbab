"""The files the native watcher reads: those of each cgroup around the process."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrange._core import ffi, lib
from vrange.cgroup import MemoryPlace, memory_places
from vrange.cgroup_tree import V2

__all__ = ["Places"]


def _readable(file: Path) -> str | None:
    """None where it can be read, else why not."""
    try:
        file.read_bytes()
    except OSError as error:
        return error.strerror or str(error)
    return None


@dataclass
class Places:
    """The directories watched, in the native side's order; `refused` says what can't be, and why.

    A cgroup that can't be read is left out, with a RuntimeWarning: a limit there would not be seen.
    """

    proc_self: Path
    directories: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def tell(self) -> None:
        """Finds where the process is now and tells the native side.

        Raises OSError where a cgroup goes away meanwhile, several times over.
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
        """What a place is called."""
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
                refused[str(place.directory)] = "too many cgroups, one in the other"
        for directory in refused.keys() - self.refused.keys():
            warnings.warn(
                f"memory pressure in {directory} is not watched ({refused[directory]}): a limit "
                "there is not seen coming",
                RuntimeWarning,
                stacklevel=4,
            )
        places = ffi.new("vrange_pressure_place[]", len(found))
        kept: list[Any] = []  # what a struct points to has to be held by somebody

        def path_of(directory: Path, name: str) -> Any:
            kept.append(ffi.new("char[]", str(directory / name).encode()))
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
