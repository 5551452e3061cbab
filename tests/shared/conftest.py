"""A name for each test, and peers that end with it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from shared_peers import Peer

import vrange


@pytest.fixture
def name() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def cache(name: str) -> Iterator[vrange.VolatileCache[Any, Any]]:
    with vrange.VolatileCache[Any, Any](shared=name) as cache:
        yield cache


@pytest.fixture
def new_peer(name: str) -> Iterator[Callable[..., Peer]]:
    peers: list[Peer] = []

    def new(method: str = "spawn", **parameters: Any) -> Peer:
        peers.append(Peer(name, method, **parameters))
        return peers[-1]

    yield new
    for peer in peers:
        peer.end()
