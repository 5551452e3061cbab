"""vrange: memory that is there while it is spare, and the kernel's when it is not.

>>> import vrange
>>> @vrange.cached
... def thumbnail(path, size): ...
"""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vrange._cache.kinds import load_shared_kind_by, load_tiered_kind_by
from vrange.errors import (
    ArenaFullError,
    CostlyHitWarning,
    NotKeptWarning,
    PurgedError,
    RegenerationError,
    VrangeError,
)

if sys.platform == "linux":
    from vrange._counters.requests import answer_with
    from vrange._ranges.limit_finders import on_first_use

# For type checkers and editors. What runs are the tables below; a test compares both.
if TYPE_CHECKING:
    from vrange import dask as dask
    from vrange import fills, heap, keys, metrics, pressure, tiers
    from vrange._arrays.array import VolatileArray
    from vrange._cache.function import CachedFunction
    from vrange._cache.info import CacheInfo
    from vrange._ranges.capabilities import Capabilities, capabilities

    if sys.platform == "linux":
        from vrange._cache.cache import VolatileCache
        from vrange._cache.cached import cached
        from vrange._counters.stats import Stats, stats
        from vrange._ranges.arena import Arena
        from vrange._ranges.range import Purged, Range
        from vrange._ranges.reserve import set_reserve
        from vrange._ranges.set_limit import memory_limit, set_limit
        from vrange._stacks.deep import DeepStack, StackUnavailableError, deep_call, deep_recursion
        from vrange._stacks.deep_threads import deep_threads
        from vrange._stacks.trim import (
            StackInfo,
            StackUse,
            register_thread,
            stack_info,
            trim_idle_stacks,
            trim_stack,
        )
    else:
        from vrange._portable import (
            Arena,
            DeepStack,
            Purged,
            Range,
            StackInfo,
            StackUnavailableError,
            StackUse,
            Stats,
            VolatileCache,
            cached,
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

    __version__: str

__all__ = [
    "Arena",
    "ArenaFullError",
    "CacheInfo",
    "CachedFunction",
    "Capabilities",
    "CostlyHitWarning",
    "DeepStack",
    "NotKeptWarning",
    "Purged",
    "PurgedError",
    "Range",
    "RegenerationError",
    "StackInfo",
    "StackUnavailableError",
    "StackUse",
    "Stats",
    "VolatileArray",
    "VolatileCache",
    "VrangeError",
    "cached",
    "capabilities",
    "deep_call",
    "deep_recursion",
    "deep_threads",
    "fills",
    "heap",
    "keys",
    "memory_limit",
    "metrics",
    "pressure",
    "register_thread",
    "set_limit",
    "set_reserve",
    "stack_info",
    "stats",
    "tiers",
    "trim_idle_stacks",
    "trim_stack",
]


# A name is imported when it is first used: `import vrange`, `vrange run` and each command pay for
# what they use. These are the same on every platform,
_DEFINED_IN = {
    "CacheInfo": "_cache.info",
    "CachedFunction": "_cache.function",
    "Capabilities": "_ranges.capabilities",
    "capabilities": "_ranges.capabilities",
}
# these are in _portable on other platforms than Linux,
_DEFINED_ON_LINUX_IN = {
    "Arena": "_ranges.arena",
    "DeepStack": "_stacks.deep",
    "Purged": "_ranges.range",
    "Range": "_ranges.range",
    "StackInfo": "_stacks.trim",
    "StackUnavailableError": "_stacks.deep",
    "StackUse": "_stacks.trim",
    "Stats": "_counters.stats",
    "VolatileArray": "_arrays.array",
    "VolatileCache": "_cache.cache",
    "cached": "_cache.cached",
    "deep_call": "_stacks.deep",
    "deep_recursion": "_stacks.deep",
    "deep_threads": "_stacks.deep_threads",
    "memory_limit": "_ranges.set_limit",
    "register_thread": "_stacks.trim",
    "set_limit": "_ranges.set_limit",
    "set_reserve": "_ranges.reserve",
    "stack_info": "_stacks.trim",
    "stats": "_counters.stats",
    "trim_idle_stacks": "_stacks.trim",
    "trim_stack": "_stacks.trim",
}
# and these are modules, of which some exist on Linux alone.
_MODULES = ("keys", "tiers")
_MODULES_ON_LINUX = ("dask", "fills", "heap", "metrics", "pressure")


def _shared_kind() -> type[Any]:
    from vrange._service.shared_cache import SharedCache

    return SharedCache


def _tiered_kind(kind: type[Any], base: type[Any]) -> type[Any]:
    from vrange.tiers.tiered import tiered_kind

    return tiered_kind(kind, base)


def _follow_dask_workers() -> None:
    from vrange._ranges.dask_worker_limit import follow_workers

    follow_workers()


load_tiered_kind_by(_tiered_kind)
if sys.platform == "linux":
    load_shared_kind_by(_shared_kind)
    on_first_use(_follow_dask_workers)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES_ON_LINUX and sys.platform != "linux":
        from vrange._portable.missing import refuse

        refuse(name)
    if name in _MODULES or name in _MODULES_ON_LINUX:
        return import_module(f"vrange.{name}")
    module = _DEFINED_IN.get(name)
    if name in _DEFINED_ON_LINUX_IN:
        module = _DEFINED_ON_LINUX_IN[name] if sys.platform == "linux" else "_portable"
    if module is not None:
        found = getattr(import_module(f"vrange.{module}"), name)
        globals()[name] = found  # the next use does not come here
        return found
    if name == "__version__":
        from importlib.metadata import version

        return version("vrange")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    # Names that are imported where they are used are listed, too.
    return sorted({*globals(), *__all__, "__version__"})


def load_ipython_extension(shell: Any) -> None:
    """Add the magic %%cached: IPython calls this for `%load_ext vrange`."""
    from vrange.integrations.ipython import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Remove it again: IPython calls this for `%unload_ext vrange`."""
    from vrange.integrations.ipython import unload

    unload(shell)


def _answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    from vrange.heap.answer_requests import answer

    return answer(request)


if sys.platform == "linux":
    answer_with(_answer)  # `vrange trim PID` and `vrange why PID`

if sys.platform == "linux" and os.environ.get("VRANGE_HEAP_INTERPRETER"):
    # As early as can be: arenas from before are not known.
    from vrange.heap.interpreter import enable_if_asked

    enable_if_asked()
