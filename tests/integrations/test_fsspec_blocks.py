"""fsspec: files that are read through blocks in vrange."""

from __future__ import annotations

import gc
import itertools
import os
import random
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.caching import caches

from vrange.integrations import fsspec as ours
from vrange.integrations.fsspec import VolatileBlockCache

CONTENT = os.urandom(10_000)
_keys = itertools.count()


def cache_of(content: bytes = CONTENT, blocksize: int = 1000, **options: Any) -> Any:
    asked: list[tuple[int, int]] = []

    def fetch(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return content[start:stop]

    cache = VolatileBlockCache(blocksize, fetch, len(content), **options)
    return cache, asked


def test_it_is_registered() -> None:
    assert caches["vrange"] is VolatileBlockCache


@pytest.mark.parametrize("blocksize", [1, 7, 1000, 10_000, 1 << 20])
def test_any_part_of_a_file(blocksize: int) -> None:
    cache, _ = cache_of(blocksize=blocksize)
    chosen = random.Random(1)
    for _ in range(50):
        start, stop = chosen.randrange(10_100), chosen.randrange(10_100)
        assert cache._fetch(start, stop) == CONTENT[start:stop]
    assert cache._fetch(None, None) == CONTENT
    assert cache._fetch(9_990, None) == CONTENT[9_990:]


def test_a_block_is_read_once_and_again_after_a_loss() -> None:
    cache, asked = cache_of()
    cache._fetch(500, 2500)
    cache._fetch(500, 2500)
    assert asked == [(0, 1000), (1000, 2000), (2000, 3000)]
    assert (cache.hit_count, cache.miss_count, cache.total_requested_bytes) == (3, 3, 3000)
    ours._blocks.discard()
    ours._blocks.clear()
    assert cache._fetch(500, 2500) == CONTENT[500:2500]
    assert len(asked) == 6


def test_the_last_block_and_empty_files() -> None:
    cache, asked = cache_of(CONTENT[:1500])
    assert cache._fetch(1200, 9999) == CONTENT[1200:1500]
    assert asked == [(1000, 1500)]
    assert cache_of(b"")[0]._fetch(0, 10) == b""


def test_files_share_blocks_by_a_key_and_else_do_not() -> None:
    key = ("etag", next(_keys))
    first, asked = cache_of(key=key)
    second, asked_by_second = cache_of(key=key)
    first._fetch(0, 1000)
    second._fetch(0, 1000)
    assert (asked, asked_by_second) == ([(0, 1000)], [])
    changed, _ = cache_of(bytes(10_000))
    assert changed._fetch(0, 1000) == bytes(1000)
    shorter, _ = cache_of(bytes(9_000), key=key)
    assert shorter._fetch(0, 1000) == bytes(1000)


def test_blocks_of_a_file_go_with_it() -> None:
    before = len(ours._blocks)
    cache, _ = cache_of()
    cache._fetch(0, 5000)
    assert len(ours._blocks) == before + 5
    del cache
    gc.collect()
    assert len(ours._blocks) == before


def test_a_short_answer_is_not_kept() -> None:
    lengths = iter([10, 1000])
    cache = VolatileBlockCache(1000, lambda start, stop: bytes(next(lengths)), 1000)
    assert cache._fetch(0, 1000) == bytes(10)
    assert cache._fetch(0, 1000) == bytes(1000)


def test_threads_read_a_block_once() -> None:
    barrier = threading.Barrier(4)
    asked: list[int] = []

    def fetch(start: int, stop: int) -> bytes:
        asked.append(start)
        return CONTENT[start:stop]

    cache = VolatileBlockCache(1000, fetch, 10_000)

    def read() -> None:
        barrier.wait()
        assert cache._fetch(0, 10_000) == CONTENT

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(asked) == list(range(0, 10_000, 1000))


def test_a_file_of_a_filesystem(tmp_path: Path) -> None:
    path = f"/blocks-{next(_keys)}"
    memory = fsspec.filesystem("memory")
    memory.pipe(path, CONTENT)

    class Slow(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "slow"

        def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
            return {"name": path, "size": len(CONTENT), "type": "file"}

        def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
            return Buffered(self, path, mode, **kwargs)

    class Buffered(fsspec.spec.AbstractBufferedFile):  # type: ignore[misc]
        def _fetch_range(self, start: int, stop: int) -> bytes:
            return CONTENT[start:stop]

    with Slow().open("a", cache_type="vrange", block_size=1000) as file:
        file.seek(1500)
        assert file.read(3000) == CONTENT[1500:4500]
        assert isinstance(file.cache, VolatileBlockCache)
    options = {"key": ("a", next(_keys))}
    with Slow().open("a", cache_type="vrange", cache_options=options) as file:
        assert file.read() == CONTENT
