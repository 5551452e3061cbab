"""vrange where there is no Linux: importing works, and a cache is an ordinary bounded one.

A program that is developed on another system and runs on Linux goes on to work here, with less: the
cache has a size, as there is nobody who could take from it. What can't be had at all raises
VrangeError where it is used, never where it is imported.
"""

from vrange.elsewhere.cache import VolatileCache
from vrange.elsewhere.cached import cached
from vrange.elsewhere.missing import (
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
    register_thread,
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
    "register_thread",
    "set_reserve",
    "stack_info",
    "stats",
    "trim_idle_stacks",
    "trim_stack",
]
