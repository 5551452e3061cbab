"""What a user of vrange may write, for type checkers; test_user_types.py gives it to them.

A line that ends with an ignore is an error that they have to find: they report unused ignores.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Self, TypeVar, assert_type

import vrange

T = TypeVar("T")


# ---- functions -----------------------------------------------------------------------------------


@vrange.cached
def square(n: int, *, negative: bool = False) -> int:
    """Multiply."""
    return -n * n if negative else n * n


@vrange.cached(ttl=timedelta(minutes=1), max_bytes="64MiB", key=lambda name: name.lower())
def greet(name: str) -> str:
    return f"Hello, {name}"


@vrange.cached()
def nothing() -> None: ...


@vrange.cached(128)
def at_most_128(name: str) -> str:
    return name


@vrange.cached(maxsize=None, typed=True)
def as_of_functools(name: str) -> str:
    return name


@vrange.cached
def same(value: T, times: int) -> list[T]:
    return [value] * times


def use_functions() -> None:
    assert_type(square(3), int)
    assert_type(square(3, negative=True), int)
    assert_type(square(n=3), int)
    assert_type(square.cache_info().hits, int)
    assert_type(square.cache_discard(3, negative=True), bool)
    assert_type(square.cache_contains(3), bool)
    assert_type(square.cache_parameters(), dict[str, Any])
    assert_type(square.__wrapped__(3), int)
    assert_type(square.cache.name, str)
    assert_type(square.cache.info(), vrange.CacheInfo)
    square.cache_clear()
    assert_type(greet("you"), str)
    assert_type(at_most_128("you"), str)
    assert_type(as_of_functools("you"), str)
    assert_type(same("a", 3), list[str])
    nothing()
    kept: vrange.CachedFunction[[str], str] = greet
    called: Callable[[int], int] = square
    assert_type([called(n) for n in range(3)], list[int])
    assert_type(list(map(square, range(3))), list[int])
    assert_type(kept("x"), str)
    power = vrange.cached(functools.partial(pow, 2))
    power(3)
    power.cache_clear()
    length = vrange.cached(len)
    assert_type(length("abc"), int)


def misuse_functions() -> None:
    square("x")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    square()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    square.cache_discard("x")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    square.cache_contains()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    square.cash_clear()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    vrange.cached(max_entries="all")  # type: ignore[call-overload] # pyright: ignore


both: vrange.VolatileCache[Any, Any] = vrange.VolatileCache(name="both")


@vrange.cached(cache=both, skip=lambda value: value is None)
def found(name: str) -> str | None:
    return name or None


@vrange.cached(ignore=("session",), timeout=5)
def loaded(path: str, session: object = None) -> str:
    return path


def note_left(key: str, cause: str) -> None:
    assert cause in {"evicted", "expired", "purged", "refused"}


heard: vrange.VolatileCache[str, int] = vrange.VolatileCache(on_evict=note_left)


@vrange.cached(max_entries=1, on_evict=lambda key, cause: note_left(str(key), cause))
def listened(path: str) -> str:
    return path


def use_options() -> None:
    assert_type(listened("a"), str)
    assert_type(listened("b"), str)
    heard["a"] = 1
    vrange.cached(on_evict=lambda key: None)  # type: ignore[arg-type,misc] # pyright: ignore
    assert_type(found("a"), str | None)
    assert_type(loaded("a", session=3), str)
    vrange.cached(cache=both, ttl=5)  # type: ignore[call-overload] # pyright: ignore


# ---- coroutine functions -------------------------------------------------------------------------


@vrange.cached
async def fetch(url: str) -> bytes:
    await asyncio.sleep(0)
    return url.encode()


@vrange.cached(ttl=60)
async def count(url: str, *, depth: int = 1) -> int:
    return len(await fetch(url)) + depth


async def use_coroutine_functions() -> None:
    assert_type(await fetch("a"), bytes)
    assert_type(await count("a", depth=3), int)
    both: tuple[bytes, int] = await asyncio.gather(fetch("a"), count("a"))
    assert list(both) == [b"a", 2]
    task: asyncio.Task[bytes] = asyncio.create_task(fetch("b"))
    assert_type(await task, bytes)
    assert_type(fetch.cache_discard("a"), bool)
    fetch.cache_clear()
    assert_type(fetch.cache_info(), vrange.CacheInfo)
    awaited: Callable[[str], Coroutine[Any, Any, bytes]] = fetch
    assert await awaited("a") == b"a"


# ---- methods -------------------------------------------------------------------------------------


class Client:
    def __init__(self, name: str) -> None:
        self.name = name

    @vrange.cached
    def get(self, path: str, *, times: int = 1) -> str:
        return f"{self.name}/{path}" * times

    @vrange.cached(ttl=60)
    async def fetch(self, path: str) -> bytes:
        return self.get(path).encode()

    @property
    @vrange.cached
    def size(self) -> int:
        return len(self.name)

    @classmethod
    @vrange.cached
    def named(cls, name: str) -> Client:
        return Client(name)

    @staticmethod
    @vrange.cached
    def double(n: int) -> int:
        return 2 * n

    @staticmethod
    @vrange.cached
    def type_name(value: Any) -> str:
        return type(value).__name__

    @vrange.cached
    @classmethod
    def known(cls, name: str) -> Client:
        return Client(name)

    @vrange.cached(max_entries=9)
    @staticmethod
    def triple(n: int) -> int:
        return 3 * n

    @vrange.cached
    def others(self, count: int) -> list[Self]:
        return [self] * count

    def use(self) -> str:
        assert_type(self.double(3) + self.triple(3), int)
        return self.get("a") + self.named("b").name


class Heir(Client):
    def use(self) -> str:
        return super().get("b") + self.get("c")


def use_methods() -> None:
    client = Heir("c")
    client.use()
    assert_type(client.get("a", times=2), str)
    assert_type(client.size, int)
    assert_type(client.get.cache_discard("a", times=2), bool)
    assert_type(client.get.cache_contains("a"), bool)
    client.get.cache_clear()
    assert_type(client.get.cache_info(), vrange.CacheInfo)
    assert_type(client.get.__wrapped__(client, "a"), str)
    assert_type(Client.get(client, "a"), str)
    assert_type(Client.get.cache_discard(client, "a"), bool)
    Client.get.cache_clear()
    bound: Callable[[str], str] = client.get
    assert_type(bound("a"), str)
    assert_type(list(map(client.get, ["a", "b"])), list[str])
    assert_type(client.others(2), list[Heir])

    assert_type(Client.named("a"), Client)
    assert_type(client.named("a"), Client)
    Client.named.cache_clear()
    assert_type(Client.known("a"), Client)
    assert_type(client.known("a"), Client)
    assert_type(Client.known.cache_discard("a"), bool)
    Client.known.cache_clear()

    assert_type(Client.double(3), int)
    assert_type(client.double(3), int)
    assert_type(Client.double.cache_discard(3), bool)
    assert_type(client.double.cache_contains(3), bool)
    assert_type(Client.type_name(3), str)
    assert_type(client.type_name(3), str)
    assert_type(Client.triple(3), int)
    assert_type(client.triple(3), int)
    Client.triple.cache_clear()


def misuse_methods() -> None:
    client = Client("c")
    client.get(3)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    client.get()  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    client.get.cache_discard(3)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    bad: Callable[[int], str] = client.get  # type: ignore[assignment] # pyright: ignore
    client.double("a")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    bad(3)


async def use_coroutine_methods() -> None:
    client = Client("c")
    assert_type(await client.fetch("a"), bytes)
    assert_type(client.fetch.cache_discard("a"), bool)
    client.fetch.cache_clear()


# ---- caches --------------------------------------------------------------------------------------


def use_caches() -> None:
    cache: vrange.VolatileCache[str, int] = vrange.VolatileCache(name="numbers", ttl=60)
    with cache:
        cache["a"] = 1
        cache.set("b", 2, ttl=timedelta(hours=1))
        assert_type(cache["a"], int)
        assert_type(cache.get("a"), int | None)
        assert_type(cache.get("a", 0), int)
        assert_type(cache.pop("b", "none"), int | str)
        assert_type(cache.pop("a"), int)
        assert_type(cache.get_or_compute("c", lambda: 3), int)
        assert_type(sorted(cache), list[str])


class Store:
    """A lower tier of the user's own."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def get(self, name: str, /) -> bytes | None:
        return self.data.get(name)

    def set(self, name: str, data: bytes, /) -> object:
        self.data[name] = data
        return None

    def delete(self, name: str, /) -> object:
        return self.data.pop(name, None)


@vrange.cached(below=Store(), name="pages", tags=lambda user: [f"user:{user}"])
def page(user: int) -> str:
    return f"page of {user}"


def use_tiers_and_tags() -> None:
    tier: vrange.tiers.Tier = Store()
    with vrange.VolatileCache[str, int](name="tiered", below=tier, tags=True) as cache:
        cache.set("b", 2, tags=["even"])
        assert_type(cache.get_or_compute("c", lambda: 3, tags="odd"), int)
        assert_type(cache.discard_tag("even"), None)
    assert_type(page(7), str)


if __name__ == "__main__":
    use_functions()
    asyncio.run(use_coroutine_functions())
    use_methods()
    asyncio.run(use_coroutine_methods())
    use_caches()
    use_tiers_and_tags()
