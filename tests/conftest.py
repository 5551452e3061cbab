"""Settings of every test: all idle bytes are offered at once, so that any of them may be taken."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import vrange
from vrange.cgroup import MemoryCgroup

settings.register_profile(
    "vrange",
    deadline=None,  # the machine may be busy with something else
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.load_profile("vrange")


@pytest.fixture(scope="session", autouse=True)
def _offer_everything() -> None:
    vrange.set_reserve("8GiB", tick=0.001)


@pytest.fixture
def arena() -> Iterator[vrange.Arena]:
    with vrange.Arena("64MiB", name="test") as arena:
        yield arena


@pytest.fixture
def cache() -> Iterator[vrange.VolatileCache]:
    """A cache without a hot front, so that every hit is a pin."""
    with vrange.VolatileCache(name="test", hot_bytes=0, arena_bytes="256MiB") as cache:
        yield cache
    gc.collect()


@pytest.hookimpl
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("memory_cgroup"):
        refusal = MemoryCgroup.unavailable()
        if refusal:
            pytest.skip(refusal)
