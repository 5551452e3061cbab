"""The settings that `vrange run` passes to the program, in one environment variable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

__all__ = ["VARIABLE", "Depth", "Heap", "Settings"]

VARIABLE = "VRANGE_RUN"
Heap = Literal["pymalloc", "libc"]
Depth = Literal["light", "deep", "holes"]


@dataclass(frozen=True)
class Settings:
    """What to switch on inside the program.

    Attributes
    ----------
    heap : {"pymalloc", "libc"}
        The allocator of the interpreter's objects: its own, or libc's malloc.
    mimalloc : str or None
        What the interpreter's mimalloc was told to do with freed pages; None: nothing.
    malloc : bool
        Whether large blocks of every library come from vrange's heap (vrange.malloc).
    malloc_refused : str or None
        Why they do not, although nobody switched it off.
    rss : bool
        Whether freed memory of the heap is returned, and not only offered.
    numpy : bool
        Whether array data comes from vrange's heap.
    watch : bool
        Whether the pressure watcher runs.
    stacks : bool
        Whether stacks of waiting executor threads are trimmed.
    trim_every : float or None
        Seconds between trims; 0: no trims; None: chosen by the cost of a trim.
    depth : {"light", "deep", "holes"}
        How much of the interpreter's own allocator a trim covers.
    metrics : tuple[str, int] or None
        The address and port on which to serve metrics.
    children : bool
        Whether interpreters that the program starts get the same settings.
    records : str or None
        The directory for each process's figures; None: no figures.
    deep : str or None
        What `--deep` tells the program (vrange._autostart.deep); None: stacks stay as they are.
    only_deep : bool
        Whether this is an interpreter that the program started: nothing else is switched on.
    restore : Mapping[str, str or None]
        The values that `vrange run` changed in the environment; None: the variable was not set.

    """

    heap: Heap = "pymalloc"
    mimalloc: str | None = None
    malloc: bool = False
    malloc_refused: str | None = None
    rss: bool = False
    numpy: bool = True
    watch: bool = True
    stacks: bool = True
    trim_every: float | None = None
    depth: Depth = "deep"
    metrics: tuple[str, int] | None = None
    children: bool = False
    records: str | None = None
    deep: str | None = None
    only_deep: bool = False
    restore: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Settings:
        """Return the settings that this version knows; the sender may have another version."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in told.items() if name in known})

    def told(self) -> dict[str, Any]:
        """Return the settings as `read` takes them, ready for JSON."""
        return asdict(self)
