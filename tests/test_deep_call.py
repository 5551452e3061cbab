"""deep_call and deep_recursion: depth reached, limits restored, arguments, bad input, nesting."""

from __future__ import annotations

import asyncio
import copy
import doctest
import gc
import importlib
import inspect
import operator
import pickle
import sys
import threading
import weakref

import pytest
from deep_helpers import KEPT, MIB, cached_steps, limits_unchanged, nested_list, plain_steps

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


def test_levels_grow_with_the_stack_and_only_inside() -> None:
    with limits_unchanged():
        own = deep.levels_left()
        small = vrange.deep_call(deep.levels_left, stack="1MiB")
        large = vrange.deep_call(deep.levels_left, stack="64MiB")
    assert own[0] + 1500 < small[0] < small[0] + 50_000 < large[0]
    if sys.version_info < (3, 14):
        assert own[1] is not None
        assert small[1] is not None
        assert large[1] is not None
        assert own[1] + 500 < small[1] < small[1] + 50_000 < large[1]


def test_this_interpreters_limits_were_found_where_they_are_known_to_be() -> None:
    known = {11: (32, 32), 12: (28, 36), 13: (44, 52), 14: (48, -1), 15: (52, -1)}
    python, c, bounds, refusal = deep.limits()
    assert refusal is None
    assert (python, c) == known[sys.version_info.minor]
    assert bounds == (sys.version_info >= (3, 14))


def test_other_threads_keep_their_limits() -> None:
    inside, done, seen = threading.Event(), threading.Event(), []

    def look() -> None:
        inside.wait()
        seen.append(deep.levels_left())
        with pytest.raises(RecursionError):
            cached_steps()(20_000)
        done.set()

    other = threading.Thread(target=look)
    other.start()

    def f() -> tuple[int, int | None]:
        inside.set()
        assert done.wait(30)
        return deep.levels_left()

    ours = vrange.deep_call(f)
    other.join()
    assert seen[0][0] < sys.getrecursionlimit() < ours[0]


def test_setrecursionlimit_meanwhile_is_kept() -> None:
    before, limit = deep.levels_left(), sys.getrecursionlimit()
    try:
        vrange.deep_call(sys.setrecursionlimit, limit + 500)
        assert sys.getrecursionlimit() == limit + 500
        assert deep.levels_left()[0] == before[0] + 500
    finally:
        sys.setrecursionlimit(limit)
    assert deep.levels_left() == before


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


def cached_raiser(f):  # type: ignore[no-untyped-def]
    import functools

    return functools.lru_cache(maxsize=None)(f)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit(3), GeneratorExit])
def test_exceptions_that_are_not_errors(error: BaseException) -> None:
    def f() -> None:
        raise error

    with (
        limits_unchanged(),
        pytest.raises(type(error) if isinstance(error, BaseException) else error),
    ):
        vrange.deep_call(f)


def test_runaway_recursion_is_a_recursion_error_and_nothing_more() -> None:
    def forever(n: int) -> int:
        return forever(n + 1)

    @cached_raiser
    def cached_forever(n: int) -> int:
        return cached_forever(n + 1)

    with limits_unchanged():
        for _ in range(3):
            for f in (forever, cached_forever):
                with pytest.raises(RecursionError):
                    vrange.deep_call(f, 0, stack="16MiB")
                gc.collect()
                assert vrange.deep_call(cached_steps(), 5_000, stack="16MiB") == 5_000
    with limits_unchanged(), pytest.raises(RecursionError):
        vrange.deep_call(repr, nested_list(200_000), stack="16MiB")


def test_a_recursion_error_caught_inside_leaves_the_rest_of_the_call_as_deep() -> None:
    def f() -> int:
        with pytest.raises(RecursionError):
            cached_steps()(1_000_000)
        return cached_steps()(9_000)

    with limits_unchanged():
        assert vrange.deep_call(f, stack="16MiB") == 9_000


def test_depth_grows_with_the_stack() -> None:
    def deepest(stack: str) -> int:
        reached = 0

        @cached_raiser
        def f(n: int) -> None:
            nonlocal reached
            reached = n
            f(n + 1)

        with pytest.raises(RecursionError):
            vrange.deep_call(f, 0, stack=stack)
        return reached

    small, large = deepest("4MiB"), deepest("16MiB")
    assert small > 2_500
    assert 3 < large / small < 5


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
        inner: list = []
        for _ in range(100_000):
            inner = [inner, Counted()]
        del inner

    vrange.deep_call(f)
    gc.collect()
    assert Counted.count == 100_000


def test_deep_inside_deep_goes_on_on_the_same_stack_while_there_is_room() -> None:
    def inner() -> object:
        return vrange.deep_call(deep.here, stack="8MiB"), vrange.deep_call(deep.here, stack="64MiB")

    with limits_unchanged():
        same, larger = vrange.deep_call(inner, stack="16MiB")
    assert same[0] == 16 * MIB
    assert larger[0] == 64 * MIB


def test_without_room_deep_inside_deep_has_one_more_stack_and_no_third() -> None:
    calls_before = vrange.stack_info().deep_calls
    stacks = set()

    @vrange.deep_recursion(stack="4MiB")
    def forever(n: int) -> int:
        where = deep.here()
        if where:
            stacks.add(where[0])
        return [forever(n + 1)][0]

    with limits_unchanged(), pytest.raises(RecursionError):
        forever(0)
    assert stacks == {4 * MIB}
    assert 1 <= vrange.stack_info().deep_calls - calls_before <= 2


def test_nested_limits_come_back_one_by_one() -> None:
    seen = []

    def innermost() -> None:
        seen.append(deep.levels_left())
        raise ValueError("out of both")

    def middle() -> None:
        before = deep.levels_left()
        with pytest.raises(ValueError, match="out of both"):
            vrange.deep_call(innermost, stack="64MiB")
        assert deep.levels_left() == before
        assert cached_steps()(9_000) == 9_000

    with limits_unchanged():
        vrange.deep_call(middle, stack="16MiB")
    assert len(seen) == 1


def test_decorated_functions_and_methods() -> None:
    class Tree:
        @vrange.deep_recursion(stack="64MiB")
        def depth(self, tree: list | None) -> int:
            """How deep."""
            return 0 if tree is None else 1 + self.depth(tree[0])

    tree = None
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


@pytest.mark.parametrize("name", ["vrange.stack", "vrange.stack_trim", "vrange.sizes"])
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
    assert str(inspect.signature(vrange.deep_call)) == "(f, /, *args, stack='4GiB', **kwargs)"
    assert pickle.loads(pickle.dumps(vrange.deep_call)) is vrange.deep_call


@pytest.mark.parametrize(
    ("stack", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (4096, ValueError),
        ("255KiB", ValueError),
        ("much", ValueError),
        ("", ValueError),
        (1 << 80, ValueError),
        (None, TypeError),
        (True, TypeError),
        (1.5e9, TypeError),
        ([], TypeError),
    ],
)
def test_sizes_that_are_none(stack: object, error: type[Exception]) -> None:
    with limits_unchanged():
        with pytest.raises(error, match="stack"):
            vrange.deep_call(len, [], stack=stack)  # type: ignore[arg-type]
        with pytest.raises(error, match="stack"):
            vrange.deep_recursion(stack=stack)(len)  # type: ignore[call-overload]


def test_what_can_not_be_called() -> None:
    with limits_unchanged():
        with pytest.raises(TypeError, match="callable, not 3"):
            vrange.deep_call(3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="takes a callable"):
            vrange.deep_call()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="callable, not None"):
            vrange.DeepStack().call(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="decorates a callable"):
            vrange.deep_recursion()(3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="'volatile', 'now', 'keep', not 'later'"):
            vrange.DeepStack(release="later")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="name"):
            vrange.DeepStack(name=3)  # type: ignore[arg-type]


def test_functions_whose_body_runs_elsewhere_are_refused() -> None:
    async def coroutine() -> None: ...

    def generator():  # type: ignore[no-untyped-def]
        yield

    async def both():  # type: ignore[no-untyped-def]
        yield

    for f in (coroutine, generator, both):
        with pytest.raises(TypeError, match="outside of the deep call"):
            vrange.deep_recursion()(f)


def test_an_address_space_that_is_too_small() -> None:
    with (
        limits_unchanged(),
        pytest.raises(vrange.StackUnavailableError, match="RLIMIT_AS") as caught,
    ):
        vrange.deep_call(len, [], stack=1 << 60)
    assert isinstance(caught.value, MemoryError)
    assert isinstance(caught.value, vrange.VrangeError)
    assert vrange.deep_call(len, []) == 0


def test_many_sizes_do_not_pile_up() -> None:
    for i in range(200):
        assert vrange.deep_call(len, [], stack=MIB + 4096 * i) == 0
    assert len(vrange.stack_info().stacks) <= 65


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
