"""diskcache, Redis and Django's caches as lower tiers.

Redis runs where there is a redis-server. A stand-in for its client runs everywhere.
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diskcache
import pytest

import vrange

Cache = vrange.VolatileCache[Any, Any]
KINDS = ["directory", "diskcache", "stand-in", "django"]
if shutil.which("redis-server"):
    KINDS.append("redis")


class Client:
    """As a client of Redis."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[bytes, int | None]] = {}
        self.asked = 0

    def get(self, name: str) -> bytes | None:
        return self.kept[name][0] if name in self.kept else None

    def mget(self, names: list[str]) -> list[bytes | None]:
        self.asked += 1
        return [self.get(name) for name in names]

    def set(self, name: str, data: bytes, *, px: int | None = None) -> None:
        self.kept[name] = data, px

    def delete(self, *names: str) -> None:
        for name in names:
            self.kept.pop(name, None)

    def scan_iter(self, match: str, count: int) -> Iterator[str]:
        yield from fnmatch.filter(list(self.kept), match)


Client.__module__ = "redis.client"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("redis")
    socket = place / "socket"
    arguments = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", place]
    process = subprocess.Popen(
        ["redis-server", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while not socket.exists() and time.monotonic() < until:
        time.sleep(0.01)
    yield str(socket)
    process.kill()
    process.wait()


@pytest.fixture(params=KINDS)
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """A function that connects to the same store, as each process would."""
    opened: list[Any] = []
    if request.param == "directory":
        yield lambda: tmp_path / "directory"
    elif request.param == "diskcache":

        def connect() -> Any:
            opened.append(diskcache.Cache(str(tmp_path / "diskcache")))
            return opened[-1]

        yield connect
    elif request.param == "redis":
        import redis

        socket = request.getfixturevalue("server")

        def connect_to_server() -> Any:
            opened.append(redis.Redis(unix_socket_path=socket))
            return opened[-1]

        yield connect_to_server
        connect_to_server().flushall()
    elif request.param == "django":
        from django.core.cache.backends.filebased import FileBasedCache

        yield lambda: FileBasedCache(str(tmp_path / "django"), {})
    else:
        client = Client()
        yield lambda: client
    for one in opened:
        one.close()


def test_a_later_cache_finds_the_values_until_they_are_removed(connect: Callable[[], Any]) -> None:
    with Cache(name="thumbs [x]*", below=connect(), ttl=3600) as cache:
        cache.set("a", list(range(5000)), tags=["t"])
        cache["b"] = "text"
        assert cache.get_or_compute("c", lambda: 7.5) == 7.5
        assert cache.flush()
        assert cache.info().below_written == 3
    with Cache(name="thumbs [x]*", below=connect(), ttl=3600) as cache:
        assert cache["a"] == list(range(5000))
        assert cache["b"] == "text"
        assert cache["c"] == 7.5
        del cache["b"]
        cache.discard_tag("t")
        assert "a" not in cache
        assert cache.info().below_errors == 0
    with Cache(name="thumbs [x]*", below=connect(), ttl=3600) as cache:
        assert (cache.get("a"), cache.get("b"), cache.get("c")) == (None, None, 7.5)
        cache.clear()
        assert cache.get("c") is None
        assert cache.info().below_errors == 0


def test_redis_is_asked_once_and_told_when_values_expire() -> None:
    client = Client()
    with Cache(name="x", below=client, ttl=3600) as cache:
        cache["a"] = 1
        cache.flush()
        client.asked = 0
        cache.get("b")
        assert client.asked == 1
        expiries = [px for name, (_, px) in client.kept.items() if "/values/" in name]
        assert expiries[0] is not None
        assert 3_000_000 < expiries[0] <= 3_600_000
        cache.clear()
        until = time.monotonic() + 60
        while any("/values/" in name for name in client.kept) and time.monotonic() < until:
            time.sleep(0.01)
        assert not any("/values/" in name for name in client.kept)


def test_clients_that_return_text_are_refused() -> None:
    import redis

    with pytest.raises(TypeError, match="decode_responses"):
        Cache(name="x", below=redis.Redis(decode_responses=True))
    with pytest.raises(TypeError, match="coroutines"):
        Cache(name="x", below=redis.asyncio.Redis())
