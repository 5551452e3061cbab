"""The cgroups that the native watcher reads: those around the process."""

from __future__ import annotations

import errno
import os
import warnings
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from vrange._cgroup.tree import cgroups_of
from vrange._core import ffi, lib
from vrange._printable import printable

__all__ = ["Places", "quiet"]

quiet: ContextVar[bool] = ContextVar("quiet", default=False)
"""Whether watchers that are made here do not warn. A filter of `warnings` is every thread's."""


@dataclass
class Places:
    """The watched directories, in the native side's order.

    `refused` maps directories that can't be watched to the reason. A cgroup that can't be read is
    left out with a RuntimeWarning unless `is_quiet`, because a limit there would not be noticed.
    """

    proc_self: Path
    is_quiet: bool = field(default_factory=lambda: quiet.get())
    directories: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def tell(self) -> None:
        """Make the native side find the process's cgroups.

        Raise OSError if there is no memory for that.
        """
        native = ffi.new("vrange_cgroups *")
        for _ in range(5):
            result = lib.vrange_pressure_find(os.fsencode(self.proc_self), native)
            if result < 0:
                raise OSError(-result, os.strerror(-result))
            errors = {c.error for c in native.cgroups[0 : native.count]}
            if not errors & {errno.ENOENT, errno.ENODEV}:  # no cgroup was removed meanwhile
                break
        cgroups = cgroups_of(native).cgroups
        before, self.refused = (
            self.refused,
            {str(c.directory): c.refused for c in cgroups if c.refused is not None},
        )
        self.directories = [str(c.directory) for c in cgroups if c.refused is None]
        if self.is_quiet:
            return
        for directory in self.refused.keys() - before.keys():
            warnings.warn(
                f"memory pressure in {printable(directory)} is not watched "
                f"({self.refused[directory]}), so a limit there can't be noticed in time",
                RuntimeWarning,
                stacklevel=3,
            )

    def name(self, place: int) -> str:
        """Return the name of a place."""
        if place == lib.VRANGE_PRESSURE_SET:
            return "set_limit"
        known = 0 <= place < len(self.directories)
        return self.directories[place] if known else "machine"
