"""What a watcher reports of itself."""

from __future__ import annotations

from dataclasses import dataclass

from vrange.pressure.callbacks import CallbackInfo, Level

__all__ = ["PressureInfo"]


@dataclass(frozen=True)
class PressureInfo:
    """The state of a watcher, and what it has done.

    Attributes
    ----------
    running : bool
        Whether it runs.
    level : {"normal", "elevated", "critical"} or None
        The level now.
    usage_bytes : int
        The usage as the kernel counts it.
    used_bytes : int
        The usage without what can be reclaimed at once: clean file pages, offered and idle bytes.
    limit_bytes : int
        The nearest limit.
    stalled : float
        The fraction of time in which tasks waited for memory.
    source : str
        The directory of the cgroup whose limit is nearest, or "machine".
    watched : tuple[str, ...]
        The directories of all cgroups that are watched.
    refused : dict[str, str]
        The directories that can't be read, each with the reason.
    changes, growths : int
        How often the level changed, and how often usage grew while the level was up.
    done, skipped, returned_bytes : dict[str, int]
        By action: how often it ran, how often it was postponed because it had run a moment before,
        and the bytes that it returned.
    failed : dict[str, str]
        By action: the last error.
    hot_grown : int
        How often the hot fronts were allowed to grow back.
    callbacks : tuple[CallbackInfo, ...]
        The counts of each callback.
    polls, read_errors : int
        How often the thread has read the files, and how often that failed.
    busy_seconds : float
        The processor time of these reads.

    """

    running: bool
    level: Level | None
    usage_bytes: int
    used_bytes: int
    limit_bytes: int
    stalled: float
    source: str
    watched: tuple[str, ...]
    refused: dict[str, str]
    changes: int
    growths: int
    done: dict[str, int]
    skipped: dict[str, int]
    failed: dict[str, str]
    returned_bytes: dict[str, int]
    hot_grown: int
    callbacks: tuple[CallbackInfo, ...]
    polls: int
    read_errors: int
    busy_seconds: float
