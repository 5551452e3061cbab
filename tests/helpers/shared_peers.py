"""Processes that share a cache with the test, and do what they are told."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import pytest

import vrange
from vrange._ranges.capabilities import capabilities

METHODS = ("spawn", "fork")
READS_LARGE = capabilities().rung != "sentinel"
reads_large_values = pytest.mark.skipif(
    not READS_LARGE, reason="on this rung processes share small values only"
)


class Peer:
    """Another process. `peer.ask(function, *args)` calls the function there, with its cache."""

    def __init__(self, name: str, method: str = "spawn", **parameters: Any) -> None:
        context = multiprocessing.get_context(method)
        self._here, there = context.Pipe()
        self.process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(there, name, parameters), daemon=True
        )
        self.process.start()
        there.close()
        assert self._here.recv() == "ready"

    @property
    def pid(self) -> int:
        pid: int = self.process.pid
        return pid

    def tell(self, function: Callable[..., Any], *args: Any) -> None:
        self._here.send((function, args))

    def hear(self, seconds: float = 60) -> Any:
        assert self._here.poll(seconds), "the peer does not answer"
        kind, answer = self._here.recv()
        if kind == "error":
            raise AssertionError(answer)
        return answer

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        self.tell(function, *args)
        return self.hear()

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)
        if number == signal.SIGKILL:
            self.process.join(30)

    def end(self) -> None:
        with suppress(OSError):
            self._here.close()
        self.process.join(1)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(30)


def _serve(pipe: Connection, name: str, parameters: dict[str, Any]) -> None:
    cache = vrange.VolatileCache[Any, Any](shared=name, **parameters)
    pipe.send("ready")
    with suppress(EOFError, OSError):
        while True:
            function, args = pipe.recv()
            try:
                pipe.send(("answer", function(cache, *args)))
            except BaseException:
                pipe.send(("error", traceback.format_exc()))


# ---- what a peer may be asked ---------------------------------------------------------------


def get(cache: Any, key: Any) -> Any:
    return cache.get(key, "absent")


def put(cache: Any, key: Any, value: Any) -> None:
    cache[key] = value


def put_for(cache: Any, key: Any, value: Any, seconds: float) -> None:
    cache.set(key, value, ttl=seconds)


def delete(cache: Any, key: Any) -> bool:
    try:
        del cache[key]
    except KeyError:
        return False
    return True


def pop(cache: Any, key: Any) -> Any:
    return cache.pop(key, "absent")


def clear(cache: Any) -> None:
    cache.clear()


def keys(cache: Any) -> list[Any]:
    return list(cache)


def compute(cache: Any, key: Any, value: Any) -> Any:
    return cache.get_or_compute(key, lambda: value)


def discard(cache: Any) -> int:
    return int(cache.discard())
