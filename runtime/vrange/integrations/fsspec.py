"""Blocks of remote files in vrange: `cache_type="vrange"` for any fsspec filesystem.

::

    import vrange.integrations.fsspec

    with fsspec.open("s3://bucket/data.bin", cache_type="vrange") as file: ...
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from fsspec.caching import BaseCache, register_cache

from vrange import VolatileCache

__all__ = ["VolatileBlockCache"]

# All files: the kernel takes the least valuable blocks of all of them.
_blocks: VolatileCache[Any, bytes] = VolatileCache(name="fsspec")
_opened = itertools.count()


class VolatileBlockCache(BaseCache):
    """The blocks of an open file, read when they are needed, and again after the kernel took them.

    Parameters
    ----------
    blocksize : int
        The bytes of a block.
    fetcher : callable
        Reads bytes of the file: fetcher(start, end).
    size : int
        The bytes of the file.
    key : hashable, optional
        In `cache_options`: what says which content this is, such as a path with an ETag. Files
        that are opened with the same key, size and blocksize share their blocks. By default an
        open file has its blocks for itself, and they go with it.

    """

    name = "vrange"

    def __init__(
        self,
        blocksize: int,
        fetcher: Callable[[int, int], bytes],
        size: int,
        key: Hashable = None,
    ) -> None:
        super().__init__(blocksize, fetcher, size)
        self.nblocks = -(-size // blocksize) if size else 0
        own = ("file", next(_opened)) if key is None else ("key", key)
        self._content = (*own, size, blocksize)
        self._read: set[int] = set()
        if key is None:
            weakref.finalize(self, _forget, self._content, self._read).atexit = False

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start = 0 if start is None else max(0, start)
        stop = self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        first, last = start // self.blocksize, (stop - 1) // self.blocksize
        if first == last:
            begin = first * self.blocksize
            return self._block(first)[start - begin : stop - begin]
        parts = [self._block(number) for number in range(first, last + 1)]
        parts[0] = parts[0][start - first * self.blocksize :]
        parts[-1] = parts[-1][: stop - last * self.blocksize]
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        start = number * self.blocksize
        stop = min(start + self.blocksize, self.size)
        key = (self._content, number)
        computed = False

        def fetch() -> bytes:
            nonlocal computed
            computed = True
            self.miss_count += 1
            self.total_requested_bytes += stop - start
            return bytes(self.fetcher(start, stop))

        self._read.add(number)
        block = _blocks.get_or_compute(key, fetch)
        self.hit_count += not computed
        if len(block) != stop - start:
            _blocks.pop(key, None)  # the file was cut meanwhile, or a server gave less
        return block


def _forget(content: Any, read: set[int]) -> None:
    for number in read:
        _blocks.pop((content, number), None)


register_cache(VolatileBlockCache, clobber=True)
