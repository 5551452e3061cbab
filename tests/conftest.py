"""Fixtures, and settings of every test: all idle bytes are offered at once, so any may be taken."""

from __future__ import annotations

import ctypes
import gc
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

import vrange
from vrange.cli.memory_cgroup import MemoryCgroup

if TYPE_CHECKING:
    from array_support import Counting

settings.register_profile(
    "vrange",
    deadline=None,  # the machine may be busy with something else
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.load_profile("vrange")


# A shell ignores SIGINT in what it runs in the background, and so would the processes that tests
# start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _offer_everything() -> None:
    vrange.set_reserve("8GiB", tick=0.001)


@pytest.fixture
def arena() -> Iterator[vrange.Arena]:
    with vrange.Arena("64MiB", name="test") as arena:
        yield arena


@pytest.fixture
def cache() -> Iterator[vrange.VolatileCache[Any, Any]]:
    """A cache without a hot front, so that every hit is a pin."""
    with vrange.VolatileCache[Any, Any](name="test", hot_bytes=0, arena_bytes="256MiB") as cache:
        yield cache
    gc.collect()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """One that nobody else can write to, as that of stats segments has to be."""
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def counting() -> Iterator[Counting]:
    """Makes arrays of u8 that count from 0, filled natively."""
    from array_support import build_fills  # NumPy is not there for every interpreter

    made = []

    def counting(blocks: float, block_bytes: int = 64 << 10, **options: Any) -> Any:
        library = ctypes.CDLL(str(build_fills()))
        start = ctypes.c_uint64(0)
        fill = vrange.fills.native(library.count_from, ctypes.addressof(start))
        array = vrange.VolatileArray(
            int(blocks * block_bytes // 8), "u8", fill=fill, block_bytes=block_bytes, **options
        )
        made.append((array, start))
        return array

    yield counting
    for array, _ in made:
        array.close()


@pytest.hookimpl
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("memory_cgroup"):
        refusal = MemoryCgroup.unavailable()
        if refusal:
            pytest.skip(reason=refusal)
