"""vrange without Linux: importing works, and a cache is an ordinary bounded one.

A program that runs on Linux can be developed on another system: there the cache has a fixed size,
because no kernel reclaims from it. Names that are not available raise VrangeError when they are
used, never when they are imported.
"""

from vrange._portable.cache import VolatileCache
from vrange._portable.cached import cached
from vrange._portable.missing import (
    Arena,
    DeepStack,
    Purged,
    Range,
    StackInfo,
    StackUnavailableError,
    StackUse,
    Stats,
    VolatileArray,
    deep_call,
    deep_recursion,
    deep_threads,
    memory_limit,
    register_thread,
    set_limit,
    set_reserve,
    stack_info,
    stats,
    trim_idle_stacks,
    trim_stack,
)

__all__ = [
    "Arena",
    "DeepStack",
    "Purged",
    "Range",
    "StackInfo",
    "StackUnavailableError",
    "StackUse",
    "Stats",
    "VolatileArray",
    "VolatileCache",
    "cached",
    "deep_call",
    "deep_recursion",
    "deep_threads",
    "memory_limit",
    "register_thread",
    "set_limit",
    "set_reserve",
    "stack_info",
    "stats",
    "trim_idle_stacks",
    "trim_stack",
]
