"""pandas: frames whose columns lie in the cache's memory until they are written to.

A DataFrame or Series keeps its values in blocks. With copy-on-write (pandas 3, or the option of
pandas 2), pandas copies a block before it writes to it, if another object refers to the same
values. The cache registers itself as such an object. So every statement works on a cached frame,
and none changes the cache. Without copy-on-write pandas writes in place, and a frame gets blocks of
its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any


class _TheCache:
    """The object that is registered with blocks as referring to their values. It never dies."""


_THE_CACHE = _TheCache()


def reducers(share: Callable[[Any], None]) -> Iterator[tuple[type, Callable[[Any], Any]]]:
    """Yield reducers for blocks and indexes; they call `share` with copy-on-write arrays."""
    blocks = sys.modules.get("pandas.core.internals.blocks")
    indexes = sys.modules.get("pandas.core.indexes.base")
    if blocks is None or indexes is None or not _copies_on_write():
        return

    def reduce_block(block: Any) -> Any:
        _share_values(block.values, share)
        function, arguments = block.__reduce__()[:2]
        return _make_block, (function, *arguments)

    def reduce_index(index: Any) -> Any:
        _share_values(vars(index).get("_data"), share)
        return index.__reduce_ex__(5)

    for kind in _with_subclasses(getattr(blocks, "Block", None)):
        yield kind, reduce_block
    for kind in _with_subclasses(getattr(indexes, "Index", None)):
        yield kind, reduce_index


def _with_subclasses(kind: type | None) -> Iterator[type]:
    if kind is not None:
        yield kind
        subclasses: list[type] = type.__subclasses__(kind)
        for each in subclasses:
            yield from _with_subclasses(each)


def _share_values(values: Any, share: Callable[[Any], None]) -> None:
    share(values)
    attributes = getattr(values, "__dict__", {})
    for array in (
        attributes.get("_data"),
        attributes.get("_mask"),
        getattr(values, "_ndarray", None),
    ):
        share(array)


def _make_block(function: Callable[..., Any], values: Any, *others: Any) -> Any:
    """Return the block; pandas copies its values before it writes to them.

    Records of lower tiers contain this function's name. Another name would make them unreadable.
    """
    if not _copies_on_write():  # the option was switched off since
        values = values.copy()
    block = function(values, *others)
    block.refs.add_index_reference(_THE_CACHE)
    return block


def _copies_on_write() -> bool:
    config = sys.modules.get("pandas._config")
    enabled: Callable[[], bool] | None = getattr(config, "using_copy_on_write", None)
    if enabled is not None:
        return enabled()
    return int(sys.modules["pandas"].__version__.partition(".")[0]) >= 3
