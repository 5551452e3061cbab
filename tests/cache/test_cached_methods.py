"""What a decorated function is to others: bound, looked at, copied and pickled."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
import weakref
from typing import Any

import pytest

import vrange
from vrange import cached


class Client:
    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0

    @cached
    def get(self, path: str, *, times: int = 1) -> str:
        """Return it."""
        self.calls += 1
        return f"{self.name}/{path}" * times

    @cached
    async def fetch(self, path: str) -> str:
        self.calls += 1
        await asyncio.sleep(0)
        return f"{self.name}/{path}"

    @classmethod
    @cached
    def below(cls, n: int) -> str:
        return f"{cls.__name__}{n}"

    @cached
    @classmethod
    def above(cls, n: int) -> str:
        return f"{cls.__name__}{n}"

    @staticmethod
    @cached
    def double(n: int) -> int:
        return 2 * n

    @cached(max_entries=5)
    @staticmethod
    def triple(n: int) -> int:
        return 3 * n


class Heir(Client):
    pass


def same(n: int) -> int:
    return n


power = cached(functools.partial(pow, 2))


def test_a_method_forgets_the_call_of_its_object() -> None:
    one, two = Client("one"), Client("two")
    assert (one.get("a"), two.get("a"), one.get("b")) == ("one/a", "two/a", "one/b")
    assert one.get.cache_contains("a")
    assert one.get.cache_discard("a")
    assert not one.get.cache_contains("a")
    assert not one.get.cache_discard("a")
    assert (one.get("a"), two.get("a"), one.get("b")) == ("one/a", "two/a", "one/b")
    assert (one.calls, two.calls) == (3, 1)
    assert Client.get.cache_discard(two, "a")
    two.get("a")
    assert two.calls == 2


def test_methods_of_coroutine_functions() -> None:
    client = Client("c")

    async def main() -> None:
        assert await client.fetch("a") == await client.fetch("a") == "c/a"
        assert client.fetch.cache_discard("a")
        assert await asyncio.gather(*[client.fetch("a") for _ in range(3)]) == ["c/a"] * 3

    asyncio.run(main())
    assert client.calls == 2


def test_class_and_static_methods_in_either_order() -> None:
    for owner in (Client, Heir, Heir("h")):
        name = "Client" if owner is Client else "Heir"
        assert (owner.below(1), owner.above(1)) == (f"{name}1", f"{name}1")
        assert (owner.double(2), owner.triple(2)) == (4, 6)
        assert owner.above.cache_contains(1)
        assert owner.double.cache_contains(2)
        assert owner.triple.cache_contains(2)
    assert Client.above.cache_info().entries == 2
    assert Heir.above.cache_discard(1)
    assert Client.above.cache_contains(1)
    assert not Heir.above.cache_contains(1)
    Client.triple.cache_clear()
    assert not Heir.triple.cache_contains(2)
    assert Client.triple.cache_parameters()["max_entries"] == 5


@pytest.mark.parametrize("method", ["cache_discard", "cache_contains"])
def test_arguments_that_no_call_has_are_refused(method: str) -> None:
    client = Client("one")
    client.get("a")
    with pytest.raises(TypeError, match=r"Client\.get.* missing a required argument: 'path'"):
        getattr(Client.get, method)("a")  # which self?
    with pytest.raises(TypeError, match="too many positional arguments"):
        getattr(client.get, method)(client, "a")
    with pytest.raises(TypeError, match="unexpected keyword argument 'time'"):
        getattr(client.get, method)("a", time=3)
    assert getattr(client.get, method)("b", times=3) is False
    assert getattr(power, method)(99) is False


def test_a_bound_method_is_one_to_others() -> None:
    client = Client("one")
    method = client.get
    assert method.__self__ is client
    assert method.__func__ is Client.__dict__["get"]
    assert (method.__name__, method.__doc__) == ("get", "Return it.")
    assert method == client.get
    assert hash(method) == hash(client.get)
    assert method != Client("one").get
    assert method != Client.get
    assert list(inspect.signature(method).parameters) == ["path", "times"]
    assert list(inspect.signature(Client.above).parameters) == ["n"]
    assert method.__wrapped__(client, "a") == "one/a"
    assert list(map(method, ["a", "b"])) == ["one/a", "one/b"]
    assert "bound" in repr(method)
    assert "get" in repr(method)
    assert weakref.WeakMethod(method)() == method
    assert method.cache_info().name == Client.get.cache.name
    assert method.cache is Client.get.cache
    method.mark = "of the function"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="nothing"):
        method.nothing  # type: ignore[attr-defined] # noqa: B018


def test_a_bound_method_is_copied_and_pickled_with_its_object() -> None:
    client = Client("one")
    client.get("a")
    loaded = pickle.loads(pickle.dumps(client.get))
    assert loaded.__func__ is Client.get
    assert loaded.__self__.name == "one"
    assert loaded.__self__ is not client
    assert pickle.loads(pickle.dumps(Heir.above))(1) == "Heir1"


@pytest.mark.parametrize("asked", [inspect.iscoroutinefunction, asyncio.iscoroutinefunction])
@pytest.mark.filterwarnings("ignore:.*asyncio.iscoroutinefunction:DeprecationWarning")
def test_coroutine_functions_are_known_as_such(asked: Any) -> None:
    @cached
    async def function() -> None: ...

    assert asked(function)
    assert asked(Client("c").fetch)
    assert asked(Client.fetch)
    assert asked(cached(functools.partial(Client.__dict__["fetch"].__wrapped__, None)))
    assert not asked(Client("c").get)
    assert not asked(power)


def test_a_class_method_may_be_called_whatever_is_above() -> None:
    # Since 3.13 `@classmethod` binds what is below it without asking it.
    for owner in (Client, Heir):
        owner.below(7)
        owner.below.cache_clear()


def test_it_is_a_cached_function() -> None:
    for function in (power, Client.get, Client.fetch):
        assert isinstance(function, vrange.CachedFunction)
    assert not isinstance(same, vrange.CachedFunction)


def test_what_has_no_name_is_copied_as_what_has_one() -> None:
    for function in (power, cached(same), Client.fetch):
        assert copy.copy(function) is function
        assert copy.deepcopy([function])[0] is function
        assert weakref.ref(function)() is function
