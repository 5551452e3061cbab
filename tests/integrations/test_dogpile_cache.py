"""dogpile.cache: the tests that it ships for backends, on ours, and what they leave out."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE
from dogpile.testing.fixtures import (
    _GenericBackendFixture,
    _GenericBackendTestSuite,
    _GenericMutexTestSuite,
    _GenericSerializerTestSuite,
)
from support import wait_until

import vrange
from vrange.integrations.dogpile import VolatileBackend


class TestBackend(_GenericBackendTestSuite):
    backend = "vrange.volatile"
    config_args = {"arguments": {"name": "dogpile"}}  # noqa: RUF012
    test_threaded_get_multi = None  # ten seconds of sleep

    def test_argument_dictionary_unmodified(self) -> None:
        # Theirs passes arguments that no backend has; ours refuses them.
        arguments = {"name": "dogpile", "max_bytes": "1MiB", "ttl": 5}
        before = dict(arguments)
        make_region().configure(self.backend, arguments=arguments)
        assert arguments == before


class TestSerializer(_GenericSerializerTestSuite, _GenericBackendFixture):
    backend = "vrange.volatile"


class TestMutex(_GenericMutexTestSuite):
    backend = "vrange.volatile"


def region(**arguments: Any) -> Any:
    return make_region().configure(
        "vrange.volatile", expiration_time=60, arguments={"name": "dogpile", **arguments}
    )


def test_what_a_caller_changes_is_its_own() -> None:
    there = region()
    there.set("a", {"list": [1], "array": np.zeros(1 << 14)})
    got = there.get("a")
    got["list"].append(2)
    got["array"][:] = 9
    assert there.get("a")["list"] == [1]
    assert not there.get("a")["array"].any()
    views = region(copy=False)
    views.set("a", np.zeros(1 << 14))
    assert not views.get("a").flags.writeable


def test_what_can_not_be_kept_is_returned() -> None:
    there = region()
    with pytest.warns(vrange.NotKeptWarning):
        function = there.get_or_create("f", lambda: lambda: 5)
    assert function() == 5
    assert there.get("f") is NO_VALUE


def test_a_ttl_removes() -> None:
    there = region(ttl=0.1)
    there.set("a", [1])
    assert there.get("a", ignore_expiration=True) == [1]
    wait_until(lambda: there.get("a", ignore_expiration=True) is NO_VALUE, "it is removed")


def test_a_lost_value_is_created_once() -> None:
    there = region()
    created: list[int] = []

    def create() -> int:
        created.append(1)
        return 5

    threads = [threading.Thread(target=lambda: there.get_or_create("a", create)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert created == [1]


def test_regions_do_not_share() -> None:
    first, second = region(), region()
    first.set("a", 1)
    assert second.get("a") is NO_VALUE


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="typo"):
        region(typo=1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_a_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    backend = VolatileBackend({})
    mutex = backend.get_mutex("a")
    mutex.acquire()
    child = os.fork()
    if not child:
        os._exit(0 if backend.get_mutex("a").acquire(False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not backend.get_mutex("a").acquire(False)
    mutex.release()
