"""Memory pressure: one watcher a process, and what it does when memory runs short.

A native thread reads usage and limit of every cgroup around the process. The cgroup that is nearest
to its limit determines the level. As the level rises, hot values are released, idle stacks and the
heap are trimmed, and callbacks are called. As it falls, the hot values may grow back. No Python
runs while nothing changes.

>>> import vrange
>>> with vrange.pressure.watch(on_level=print) as watcher:
...     watcher.level in ("normal", "elevated", "critical")
True
"""

from vrange.pressure.callbacks import CallbackInfo, LevelChange
from vrange.pressure.info import PressureInfo
from vrange.pressure.watcher import Level, Watcher, current, watch

__all__ = [
    "CallbackInfo",
    "Level",
    "LevelChange",
    "PressureInfo",
    "Watcher",
    "current",
    "watch",
]
