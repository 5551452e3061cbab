"""Backends with the option `shared`: another process of the service finds what was stored here."""

from __future__ import annotations

import os

import pytest
from support import succeeds

from vrange.integrations._atomic import WITH_SHARED, AtomicCache
from vrange.integrations.flask import VolatileCache
from vrange.integrations.joblib import VolatileStoreBackend
from vrange.integrations.zarr import VolatileStore

NAME = f"backends-{os.getpid()}"


def in_another_process(code: str) -> str:
    return succeeds(
        f"""
        from vrange.integrations.flask import VolatileCache
        there = VolatileCache(name={NAME!r}, shared=True)
        {code}
        """
    ).strip()


def test_workers_of_a_service_have_one_cache() -> None:
    here = VolatileCache(name=NAME, shared=True)
    here.set("list", [1, {"a": 2}])
    here.set("n", 5, timeout=60)
    assert in_another_process("print(there.get('list'), there.inc('n'))") == "[1, {'a': 2}] 6"
    assert here.get("n") == 6
    here.get("list").append(3)
    assert here.get("list") == [1, {"a": 2}]
    assert in_another_process("print(there.delete('list'), there.add('n', 7))") == "True False"
    assert here.get("list") is None
    in_another_process("there.clear()")
    assert here.get("n") is None


def test_a_shared_cache_needs_a_name() -> None:
    with pytest.raises(TypeError, match="name"):
        AtomicCache(None, {"shared": True}, WITH_SHARED)


def test_what_other_processes_could_not_use_refuses() -> None:
    with pytest.raises(TypeError, match="not shared"):
        VolatileStore("chunks", shared=True)
    with pytest.raises(TypeError, match="not shared"):
        VolatileStoreBackend().configure("here", backend_options={"shared": True})
