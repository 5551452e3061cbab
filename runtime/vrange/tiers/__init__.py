"""Lower tiers of caches: where values are kept so that a restarted process is not cold.

`VolatileCache(below=...)` and `@cached(below=...)` take a directory, a `diskcache.Cache`, a client
of Redis, or any object that has the methods of `Tier`.
"""

from vrange.tiers.directory import Directory
from vrange.tiers.stores import Tier

__all__ = ["Directory", "Tier"]
