"""Caches that several processes can use: each stores in a child, and is read here."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any, Protocol, cast

import vrange

SIZES = {"64 B": 64, "4 KiB": 4096, "256 KiB": 256 << 10, "8 MiB": 8 << 20}
_SPAWN = multiprocessing.get_context("spawn")


def value_of(key: int, nbytes: int) -> bytes:
    """Return the value that is stored under a key."""
    return bytes([key + 1]) * nbytes


class Peer(Protocol):
    get: Callable[[int], Any]

    def close(self) -> None:
        """Stop its processes, and remove its files."""


class _Stored:
    """A child that stores all values and then waits."""

    def __init__(self, target: Callable[..., None], *args: Any) -> None:
        self._here, there = _SPAWN.Pipe()
        self._child = _SPAWN.Process(target=_store, args=(there, target, *args), daemon=True)
        self._child.start()
        self._here.recv()

    def close(self) -> None:
        self._here.send("end")
        self._child.join()


def _store(pipe: Any, target: Callable[..., Any], *args: Any) -> None:
    kept = target(*args)  # noqa: F841 - what has the values
    pipe.send("stored")
    pipe.recv()


# ---- vrange ------------------------------------------------------------------------------------


def _store_in_vrange(name: str, nbytes: int, keys: int) -> Any:
    cache = vrange.VolatileCache[int, bytes](shared=name)
    for key in range(keys):
        cache[key] = value_of(key, nbytes)
    return cache


class _Vrange:
    """Each hit reads from the other process: with hot_bytes=0 there are no copies here."""

    def __init__(self, nbytes: int, keys: int, hot_bytes: int | str = 0) -> None:
        name = f"bench-{uuid.uuid4().hex[:12]}"
        self._stored = _Stored(_store_in_vrange, name, nbytes, keys)
        self._cache = vrange.VolatileCache[int, bytes](shared=name, hot_bytes=hot_bytes)
        self.get = self._cache.__getitem__

    def close(self) -> None:
        self._cache.close()
        self._stored.close()


# ---- servers -----------------------------------------------------------------------------------


class _Server:
    """A server on a unix socket in a directory of its own."""

    def __init__(self, command: list[str], socket: str) -> None:
        self._directory = tempfile.mkdtemp(prefix="vrange-bench-")
        self.socket = str(Path(self._directory, socket))
        self._server = subprocess.Popen(
            [part.replace("SOCKET", self.socket) for part in command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._directory,
        )
        while not Path(self.socket).exists():
            assert self._server.poll() is None, "the server ended"
            time.sleep(0.01)

    def close(self) -> None:
        self._server.terminate()
        self._server.wait()
        shutil.rmtree(self._directory)


class _Redis(_Server):
    def __init__(self, nbytes: int, keys: int) -> None:
        import redis

        super().__init__(
            ["redis-server", "--port", "0", "--unixsocket", "SOCKET", "--save", ""], "redis"
        )
        self._client = redis.Redis(unix_socket_path=self.socket)
        for key in range(keys):
            self._client.set(str(key), value_of(key, nbytes))

    def get(self, key: int) -> Any:
        return self._client.get(str(key))


class _Memcached(_Server):
    def __init__(self, nbytes: int, keys: int) -> None:
        from pymemcache.client.base import Client

        user = pwd.getpwuid(os.geteuid()).pw_name
        command = ["memcached", "-u", user, "-s", "SOCKET", "-I", "32m", "-m", "512"]
        super().__init__(command, "memcached")
        self._client = Client(self.socket)
        for key in range(keys):
            self._client.set(str(key), value_of(key, nbytes))

    def get(self, key: int) -> Any:
        return self._client.get(str(key))


def _if_installed(program: str, make: Callable[[int, int], Any]) -> Callable[[int, int], Any]:
    return lambda nbytes, keys: make(nbytes, keys) if shutil.which(program) else None


# ---- files, managers and shared memory ---------------------------------------------------------


class _DiskCache:
    def __init__(self, nbytes: int, keys: int) -> None:
        import diskcache

        self._directory = tempfile.mkdtemp(prefix="vrange-bench-", dir="/dev/shm")
        self._cache = diskcache.Cache(self._directory)
        for key in range(keys):
            self._cache[key] = value_of(key, nbytes)
        self.get = self._cache.__getitem__

    def close(self) -> None:
        self._cache.close()
        shutil.rmtree(self._directory)


class _Manager:
    def __init__(self, nbytes: int, keys: int) -> None:
        self._manager = _SPAWN.Manager()
        self._dict = self._manager.dict()
        for key in range(keys):
            self._dict[key] = value_of(key, nbytes)
        self.get = self._dict.__getitem__

    def close(self) -> None:
        self._manager.shutdown()


class _SharedMemory:
    """One block with all values, of one size, under one lock: no cache, but the least work."""

    def __init__(self, nbytes: int, keys: int) -> None:
        self._nbytes, self._lock = nbytes, _SPAWN.Lock()
        self._block = shared_memory.SharedMemory(create=True, size=nbytes * keys)
        self._view = cast(memoryview, self._block.buf)
        for key in range(keys):
            self._view[key * nbytes : (key + 1) * nbytes] = value_of(key, nbytes)

    def get(self, key: int) -> bytes:
        """Copy a value out."""
        with self._lock:
            return bytes(self._view[key * self._nbytes : (key + 1) * self._nbytes])

    def close(self) -> None:
        """Remove the block."""
        del self._view
        self._block.close()
        self._block.unlink()


PEERS: dict[str, Callable[[int, int], Any]] = {
    "vrange": _Vrange,
    "vrange, with copies of what is read often": lambda nbytes, keys: _Vrange(nbytes, keys, "auto"),
    "Redis": _if_installed("redis-server", _Redis),
    "memcached": _if_installed("memcached", _Memcached),
    "diskcache on /dev/shm": _DiskCache,
    "Manager().dict()": _Manager,
    "SharedMemory and a Lock": _SharedMemory,
}
