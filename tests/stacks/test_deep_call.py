"""deep_call and deep_recursion: depth reached, arguments, results, exceptions, threads, asyncio."""

from __future__ import annotations

import asyncio
import copy
import doctest
import gc
import importlib
import inspect
import operator
import pickle
import threading
import weakref
from typing import Any

import pytest
from deep_helpers import (
    KEPT,
    MIB,
    cached_raiser,
    cached_steps,
    limits_unchanged,
    nested_list,
    plain_steps,
)

import vrange
from vrange._core import deep


def test_memoised_recursion_a_million_deep() -> None:
    with limits_unchanged():
        assert vrange.deep_call(cached_steps(), 1_000_000) == 1_000_000


def test_an_ordinary_call_goes_nowhere_near_that_deep() -> None:
    with pytest.raises(RecursionError):
        cached_steps()(20_000)


def test_pure_python_recursion() -> None:
    with limits_unchanged():
        assert vrange.deep_call(plain_steps, 300_000) == 300_000


def test_arguments_and_keywords_are_passed_on() -> None:
    def f(*args: object, **kwargs: object) -> object:
        return args, kwargs, deep.here() is not None

    assert vrange.deep_call(f) == ((), {}, True)
    assert vrange.deep_call(f, 1, 2, a=3) == ((1, 2), {"a": 3}, True)
    assert vrange.deep_call(f, 1, a=2, stack="1MiB", b=3) == ((1,), {"a": 2, "b": 3}, True)
    many = {f"k{i}": i for i in range(40)}
    assert vrange.deep_call(f, *range(40), stack=MIB, **many) == (tuple(range(40)), many, True)
    assert vrange.DeepStack("1MiB").call(f, 1, stack=2) == ((1,), {"stack": 2}, True)


def test_the_stack_asked_for_is_the_stack_got() -> None:
    for stack, size in (("1MiB", MIB), (3 * MIB, 3 * MIB), (vrange.DeepStack("5MiB"), 5 * MIB)):
        where = vrange.deep_call(deep.here, stack=stack)
        assert where is not None
        assert where[0] == size
        assert 0 < where[1] < KEPT
    default = vrange.deep_call(deep.here)
    assert default is not None
    assert default[0] == 4 << 30


def test_exceptions_pass_with_their_whole_traceback() -> None:
    @cached_raiser
    def descend(n: int) -> None:
        if n == 0:
            raise KeyError("at the bottom")
        descend(n - 1)

    with limits_unchanged():
        with pytest.raises(KeyError, match="at the bottom") as caught:
            vrange.deep_call(descend, 5000)
        levels, link = 0, caught.value.__traceback__
        while link is not None:
            levels += link.tb_frame.f_code is descend.__wrapped__.__code__
            link = link.tb_next
        assert levels == 5001
        del link
        caught.value.__traceback__ = None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit(3), GeneratorExit])
def test_exceptions_that_are_not_errors(error: BaseException) -> None:
    def f() -> None:
        raise error

    with (
        limits_unchanged(),
        pytest.raises(type(error) if isinstance(error, BaseException) else error),
    ):
        vrange.deep_call(f)


def test_a_deep_result_is_used_and_freed_after_the_call() -> None:
    with limits_unchanged():
        result = vrange.deep_call(nested_list, 200_000)
        assert result[0][0]
        again = vrange.deep_call(copy.deepcopy, result)
        assert vrange.deep_call(operator.eq, again, result)
        del result, again
        chain = vrange.deep_call(chained, 200_000)
        gone = weakref.ref(chain)
        del chain
        gc.collect()
        assert gone() is None


class Link:
    """One of many that hold one another."""

    def __init__(self, inner: Link | None) -> None:
        self.inner = inner


def chained(depth: int) -> Link:
    link = Link(None)
    for _ in range(depth):
        link = Link(link)
    return link


def test_deep_objects_dropped_inside_are_finalized() -> None:
    class Counted:
        count = 0

        def __del__(self) -> None:
            Counted.count += 1

    def f() -> None:
        inner: list[Any] = []
        for _ in range(100_000):
            inner = [inner, Counted()]
        del inner

    vrange.deep_call(f)
    gc.collect()
    assert Counted.count == 100_000


def test_decorated_functions_and_methods() -> None:
    class Tree:
        @vrange.deep_recursion(stack="64MiB")
        def depth(self, tree: list[Any] | None) -> int:
            """How deep."""
            return 0 if tree is None else 1 + self.depth(tree[0])

    tree: list[Any] | None = None
    for _ in range(20_000):
        tree = [tree]
    with limits_unchanged():
        assert Tree().depth(tree) == 20_000
    assert Tree.depth.__doc__ == "How deep."
    assert list(inspect.signature(Tree.depth).parameters) == ["self", "tree"]
    bare = vrange.deep_recursion(plain_steps)
    assert bare(1000) == 1000
    given = vrange.deep_recursion(vrange.DeepStack("2MiB"))(deep.here)
    where = given()
    assert where is not None
    assert where[0] == 2 * MIB


@pytest.mark.parametrize("decorate", [vrange.deep_recursion, vrange.deep_recursion("64MiB")])
def test_static_and_class_methods(decorate: Any) -> None:
    """Below the decorator, or above it; called on the class and on an object."""

    def down(n: int) -> int:
        return 0 if n == 0 else 1 + tree.static(n - 1)

    def down_of_class(cls: Any, n: int) -> int:
        return 0 if n == 0 else 1 + cls.of_class(n - 1)

    methods = {
        "static": decorate(staticmethod(down)),
        "of_class": decorate(classmethod(down_of_class)),
        "above": staticmethod(decorate(down)),
    }
    tree: Any = type("Tree", (), methods)
    for function in (tree.static, tree().static, tree.of_class, tree().of_class, tree().above):
        assert function(5000) == 5000


@pytest.mark.parametrize("name", ["vrange._stacks.deep", "vrange._stacks.trim", "vrange.sizes"])
def test_the_examples_in_the_documentation(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert (failed, tried > 0) == (0, True)


def test_the_example_of_deep_call() -> None:
    (example,) = doctest.DocTestFinder().find(vrange.deep_call, "deep_call", module=False)
    results = doctest.DocTestRunner().run(example)
    assert (results.failed, results.attempted > 0) == (0, True)


def test_what_can_be_told_of_it() -> None:
    assert repr(vrange.DeepStack("64MiB", release="now", name="walk")) == (
        "DeepStack('64.0 MiB', release='now', name='walk')"
    )
    assert str(inspect.signature(vrange.deep_call)) == "(f, /, *args, stack='auto', **kwargs)"
    assert pickle.loads(pickle.dumps(vrange.deep_call)) is vrange.deep_call


def test_every_thread_has_a_stack_of_its_own() -> None:
    barrier, results = threading.Barrier(8), []

    def work(i: int) -> None:
        with limits_unchanged():

            def f() -> int:
                barrier.wait(30)  # all are inside at once
                return cached_steps()(20_000 + i)

            results.append(vrange.deep_call(f, stack="64MiB"))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [20_000 + i for i in range(8)]


def test_asyncio_tasks_and_callbacks() -> None:
    async def main() -> list[int]:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def callback() -> None:
            assert asyncio.get_running_loop() is loop
            assert cached_steps()(50_000) == 50_000
            done.set()

        loop.call_soon(vrange.deep_call, callback)
        await done.wait()

        async def task(i: int) -> int:
            assert vrange.deep_call(asyncio.get_running_loop) is loop
            result = vrange.deep_call(cached_steps(), 20_000 + i)
            await asyncio.sleep(0)
            return result

        return await asyncio.gather(*(task(i) for i in range(10)))

    with limits_unchanged():
        assert asyncio.run(main()) == [20_000 + i for i in range(10)]
