"""Greenlets and gevent: deep calls inside them work; a switch out of a deep call is refused."""

from __future__ import annotations

import textwrap

import pytest
from deep_helpers import output_of

pytest.importorskip("greenlet", reason="greenlet is not installed")

PRELUDE = """
import functools, greenlet, threading, vrange
from greenlet import getcurrent
from vrange._core import deep

def cached():
    @functools.cache
    def steps(n): return 0 if n == 0 else 1 + steps(n - 1)
    return steps

def refused(call):
    own = deep.levels_left()
    try:
        result = call()
    except greenlet.error as error:
        assert "deep call" in str(error), error
        assert deep.levels_left() == own
        return True
    raise AssertionError(f"not refused: {result!r}")
"""


def greenlets(program: str) -> str:
    return output_of(textwrap.dedent(PRELUDE) + textwrap.dedent(program))


def test_a_deep_call_inside_a_greenlet() -> None:
    answer = greenlets(
        """
        main = getcurrent()
        def body(n):
            first = vrange.deep_call(cached(), n)
            main.switch(first)  # between deep calls, it is free to leave
            return vrange.deep_call(cached(), n + 1)
        both = [greenlet.greenlet(body) for _ in range(3)]
        print([g.switch(100_000 + i) for i, g in enumerate(both)], [g.switch() for g in both])
        """
    )
    assert answer == "[100000, 100001, 100002] [100001, 100002, 100003]"


def test_greenlets_that_begin_and_end_inside() -> None:
    answer = greenlets(
        """
        def inside():
            me, seen = getcurrent(), []
            def body(n):
                while True:
                    seen.append(cached()(n))
                    n = me.switch(n)
                    if n is None: return "ended"
            one, two = greenlet.greenlet(body), greenlet.greenlet(body)
            for g, n in (one, 20_000), (two, 20_001), (one, 20_002):
                assert g.switch(n) == n
            assert one.switch(None) == two.switch(None) == "ended"
            return seen, one.dead, two.dead
        own = deep.levels_left()
        print(vrange.deep_call(inside))
        assert deep.levels_left() == own
        assert [use.thread_id for use in vrange.stack_info().stacks] == [None]
        """
    )
    assert answer == "([20000, 20001, 20002], True, True)"


def test_switching_out_is_refused_however_it_is_tried() -> None:
    answer = greenlets(
        """
        main, log = getcurrent(), []
        def body():
            log.append("begun")
            main.switch()
            log.append("went on")
            try:
                main.switch()
            except KeyError:
                log.append("thrown into")
        g = greenlet.greenlet(body)
        bound_early = g.switch
        g.switch()
        class Sub(greenlet.greenlet): pass
        other = Sub(lambda: main.switch())
        other.switch()
        assert refused(lambda: vrange.deep_call(bound_early))
        assert refused(lambda: vrange.deep_call(lambda: g.switch()))
        assert refused(lambda: vrange.deep_call(lambda: g.throw(KeyError)))
        assert refused(lambda: vrange.deep_call(greenlet.greenlet.switch, g))
        assert refused(lambda: vrange.deep_call(other.switch))
        # from inside a greenlet, to its parent, and to a new one that would end there
        assert refused(greenlet.greenlet(lambda: vrange.deep_call(main.switch)).switch)
        orphan = greenlet.greenlet(lambda: None, parent=g)
        assert refused(lambda: vrange.deep_call(orphan.switch))
        assert log == ["begun"]
        # and nothing is broken afterwards
        g.switch()
        g.throw(KeyError)
        print(log, vrange.deep_call(cached(), 100_000))
        """
    )
    assert answer == "['begun', 'went on', 'thrown into'] 100000"


def test_a_greenlet_left_behind_ends_with_the_call() -> None:
    answer = greenlets(
        """
        seen = []
        def inside():
            me = getcurrent()
            def body():
                try:
                    me.switch()
                    seen.append("never")
                except greenlet.GreenletExit:
                    seen.append("ended")
                    raise
            g = greenlet.greenlet(body)
            g.switch()
            return g
        g = vrange.deep_call(inside)
        print(seen, g.dead, len(vrange.stack_info().stacks), vrange.deep_call(cached(), 50_000))
        """
    )
    assert answer == "['ended'] True 1 50000"


def test_one_that_will_not_end_keeps_its_stack() -> None:
    answer = greenlets(
        """
        def inside():
            me = getcurrent()
            def body():
                while True:
                    try:
                        me.switch()
                    except greenlet.GreenletExit:
                        pass
            g = greenlet.greenlet(body)
            g.switch()
            return g
        g = vrange.deep_call(inside)
        assert not g.dead
        for _ in range(3):
            assert vrange.deep_call(cached(), 50_000) == 50_000
        uses = vrange.stack_info().stacks
        print(len(uses), flush=True)
        import os; os._exit(0)
        """
    )
    assert answer == "2"


def test_switches_outside_of_deep_calls_are_as_before() -> None:
    answer = greenlets(
        """
        vrange.deep_call(len, [])
        main = getcurrent()
        def body(a, b=2):
            c = main.switch((a, b))
            try:
                main.switch(c)
            except KeyError as error:
                return repr(error)
        g = greenlet.greenlet(body)
        vrange.deep_call(len, [])
        print(g.switch(1, b=3), g.switch("c"), g.throw(KeyError("k")), g.dead)
        try:
            greenlet.greenlet(lambda: None).throw(ValueError, "v")
        except ValueError as error:
            print(error)
        """
    )
    assert answer.splitlines() == ["(1, 3) c KeyError('k') True", "v"]


def test_greenlet_imported_inside_the_call() -> None:
    answer = output_of(
        """
        import vrange
        def inside():
            import greenlet
            me = greenlet.getcurrent()
            g = greenlet.greenlet(lambda: me.switch(1))
            return g.switch(), g
        value, g = vrange.deep_call(inside, stack="1MiB")
        assert vrange.deep_call(lambda: 5, stack="1MiB") == 5
        print(value, len(vrange.stack_info().stacks), flush=True)  # the first is not used again
        import os; os._exit(0)
        """
    )
    assert answer == "1 2"


GEVENT = """
import gevent, gevent.lock
"""


def test_gevent_deep_calls_in_greenlets() -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    answer = greenlets(
        GEVENT
        + """
def work(i):
    gevent.sleep(0.001)
    result = vrange.deep_call(cached(), 50_000 + i)
    gevent.sleep(0.001)
    return result
jobs = [gevent.spawn(work, i) for i in range(10)]
gevent.joinall(jobs)
print([job.get() for job in jobs] == [50_000 + i for i in range(10)])
"""
    )
    assert answer == "True"


@pytest.mark.parametrize("hub", ["gevent.sleep(0)", ""])
def test_gevent_blocking_inside_is_refused(hub: str) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    answer = greenlets(
        GEVENT
        + hub
        + """
assert refused(lambda: vrange.deep_call(gevent.sleep, 0.01))
lock = gevent.lock.Semaphore(0)
assert refused(lambda: vrange.deep_call(lock.acquire, timeout=1))
assert gevent.spawn(lambda: refused(lambda: vrange.deep_call(gevent.sleep, 0))).get()
gevent.sleep(0.001)
job = vrange.deep_call(gevent.spawn, lambda: 42)  # only to be started, later and outside
print(job.get(), gevent.spawn(vrange.deep_call, cached(), 60_000).get())
"""
    )
    assert answer == "42 60000"


def test_gevent_the_threadpool_is_the_way_out() -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    answer = greenlets(
        GEVENT
        + """
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.001)  # with 0 the loop starves other threads of the GIL
ticking = gevent.spawn(tick)
result = gevent.get_hub().threadpool.apply(vrange.deep_call, (cached(), 200_000))
ticking.kill()
print(result, len(ticks) > 1)
"""
    )
    assert answer == "200000 True"


def test_greenlets_switched_out_of_are_let_go() -> None:
    answer = greenlets(
        """
        import gc
        def inside():
            def body(): getcurrent().parent.switch()
            for _ in range(500):
                g = greenlet.greenlet(body)
                g.switch()
                g.switch()
                assert g.dead
            del g
            gc.collect()
            kept = sum(isinstance(o, greenlet.greenlet) for o in gc.get_objects())
            log = []
            def left():
                try: getcurrent().parent.switch()
                finally: log.append("finally")
            g = greenlet.greenlet(left)
            g.switch()
            del g
            return kept, log
        print(inside() == vrange.deep_call(inside) == (1, ["finally"]))
        """
    )
    assert answer == "True"


def test_a_greenlet_that_another_thread_collects_ends_on_its_stack() -> None:
    answer = greenlets(
        """
        import gc
        gc.disable()
        def inside():
            log = []
            def left():
                cycle = [getcurrent()]
                cycle.append(cycle)
                try: getcurrent().parent.switch()
                finally: log.append(deep.here() is not None)
            for _ in range(20):
                greenlet.greenlet(left).switch()
            other = threading.Thread(target=gc.collect)
            other.start()
            other.join()
            return log
        outside, log = inside(), vrange.deep_call(inside)
        # with CPython 3.15 and greenlet 3.5 none is ended, outside neither
        print(len(log) in (20, len(outside)), all(log), vrange.deep_call(cached(), 20_000))
        """
    )
    assert answer == "True True 20000"
