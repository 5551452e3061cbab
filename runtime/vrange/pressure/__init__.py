"""Giving way when memory runs short: one watcher a process, and what it does.

A native thread looks at usage and limit of every cgroup around the process, and makes a level of
the one that is nearest to its limit. As the level rises, hot values are let go, idle stacks and the
heap are trimmed, and callbacks are told; as it falls, the hot values may grow back. No Python runs
while nothing changes.

>>> import vrange
>>> with vrange.pressure.watch(on_level=print) as watcher:
...     watcher.level in ("normal", "elevated", "critical")
True
"""

from vrange.pressure.callbacks import CallbackInfo, LevelChange
from vrange.pressure.watcher import Level, PressureInfo, Watcher, current, watch

__all__ = [
    "CallbackInfo",
    "Level",
    "LevelChange",
    "PressureInfo",
    "Watcher",
    "current",
    "watch",
]
