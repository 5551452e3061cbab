"""What `vrange run` tells the program it starts, by one environment variable."""

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
    """What is to be switched on inside the program.

    Attributes:
        heap: Who serves the interpreter's objects: its own allocator, or libc's malloc.
        numpy: Array data from vrange's arenas.
        watch: The pressure watcher.
        stacks: Stacks of executors' threads are trimmed while they wait.
        trim_every: Seconds between trims; 0: none; None: chosen by what a trim costs.
        depth: How much of the interpreter's own allocator a trim goes through.
        metrics: Address and port to serve metrics on.
        children: Interpreters that the program starts get the same.
        records: The directory in which each process leaves its figures; None: no figures.
        restore: What the environment had where `vrange run` changed it; None: nothing.

    """

    heap: Heap = "pymalloc"
    numpy: bool = True
    watch: bool = True
    stacks: bool = True
    trim_every: float | None = None
    depth: Depth = "deep"
    metrics: tuple[str, int] | None = None
    children: bool = False
    records: str | None = None
    restore: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Settings:
        """Of what was told, what this version knows: the other side may be of another one."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in told.items() if name in known})

    def told(self) -> dict[str, Any]:
        """As `read` takes it, ready for JSON."""
        return asdict(self)
