"""vrange: memory that is there while it is spare, and the kernel's when it is not.

>>> import vrange
>>> @vrange.cached
... def thumbnail(path, size): ...
"""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vrange._cache.common import load_tiered_kind_by
from vrange._cache.function import CachedFunction
from vrange._cache.info import CacheInfo
from vrange._ranges.capabilities import Capabilities, capabilities
from vrange.errors import (
    ArenaFullError,
    CostlyHitWarning,
    NotKeptWarning,
    PurgedError,
    RegenerationError,
    VrangeError,
)

if sys.platform == "linux":
    from vrange._cache.cache import VolatileCache, load_shared_kind_by
    from vrange._cache.cached import cached
    from vrange._counters.requests import answer_with
    from vrange._counters.stats import Stats, stats
    from vrange._ranges import dask_worker_limit as _dask_worker_limit  # noqa: F401  # it registers
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

if TYPE_CHECKING:
    from vrange import dask as dask
    from vrange import fills, heap, keys, metrics, pressure, tiers
    from vrange._arrays.array import VolatileArray

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


def _shared_kind() -> type[Any]:
    # Few programs share caches: import what is needed for it with the first one.
    from vrange._service.shared_cache import SharedCache

    return SharedCache


def _tiered_kind(kind: type[Any], base: type[Any]) -> type[Any]:
    from vrange.tiers.tiered import tiered_kind

    return tiered_kind(kind, base)


load_tiered_kind_by(_tiered_kind)
if sys.platform == "linux":
    load_shared_kind_by(_shared_kind)


def __getattr__(name: str) -> Any:
    # What needs NumPy, an extra, or takes long to import, is imported where it is used.
    if name == "VolatileArray":
        if sys.platform == "linux":
            from vrange._arrays.array import VolatileArray
        else:
            from vrange._portable import VolatileArray

        return VolatileArray
    if name in ("dask", "fills", "heap", "metrics", "pressure"):
        if sys.platform != "linux":
            from vrange._portable.missing import refuse

            refuse(name)
        from importlib import import_module

        return import_module(f"vrange.{name}")
    if name in ("keys", "tiers"):
        from importlib import import_module

        return import_module(f"vrange.{name}")
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
