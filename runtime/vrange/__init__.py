"""vrange: memory that is there while it is spare, and the kernel's when it is not.

>>> import vrange
>>> @vrange.cached
... def thumbnail(path, size): ...
"""

from vrange.arena import Arena
from vrange.cache import CacheInfo, VolatileCache
from vrange.cached import cached
from vrange.capabilities import Capabilities, capabilities
from vrange.errors import ArenaFullError, PurgedError, RegenerationError, VrangeError
from vrange.range import Purged, Range
from vrange.reserve import set_reserve
from vrange.stats import Stats, stats

__all__ = [
    "Arena",
    "ArenaFullError",
    "CacheInfo",
    "Capabilities",
    "Purged",
    "PurgedError",
    "Range",
    "RegenerationError",
    "Stats",
    "VolatileCache",
    "VrangeError",
    "cached",
    "capabilities",
    "set_reserve",
    "stats",
]
