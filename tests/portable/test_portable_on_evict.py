"""Without Linux, too, a listener hears of each entry that the cache removed by itself."""

from __future__ import annotations

import pytest
from other_platform import elsewhere

PRELUDE = """
import threading
heard = []
def listen(key, cause):
    other = threading.Thread(target=lambda: len(cache))
    other.start()
    other.join(20)
    assert not other.is_alive(), "the cache is locked meanwhile"
    heard.append((key, cause))
"""


@pytest.mark.parametrize(
    "code",
    [
        """
        cache = vrange.VolatileCache(max_entries=2, on_evict=listen)
        for i in range(4):
            cache[i] = i
        assert heard == [(0, "evicted"), (1, "evicted")]
        cache.clear(); cache[1] = 1; cache[1] = 2; del cache[1]; cache[2] = 2; cache.pop(2)
        assert len(heard) == 2
        """,
        """
        cache = vrange.VolatileCache(ttl=0.001, on_evict=listen)
        for notice in lambda: cache.get("a"), lambda: len(cache), lambda: cache.pop("a", None):
            cache["a"] = 1
            time.sleep(0.01)
            notice()
        assert heard == [("a", "expired")] * 3
        """,
        """
        cache = vrange.VolatileCache(max_bytes=1000, on_evict=listen)
        cache["a"] = 1
        cache["a"] = bytes(2000)
        assert cache.get_or_compute("b", lambda: bytes(2000)) == bytes(2000)
        assert heard == [("a", "refused"), ("b", "refused")]
        """,
        """
        cache = vrange.VolatileCache(on_evict=listen)
        cache["a"] = 1
        cache.discard()
        assert heard == [("a", "purged")]
        """,
        """
        @vrange.cached(max_entries=1, on_evict=lambda key, cause: listen(key, cause))
        async def f(n):
            return n
        cache = f.cache
        async def main():
            for i in range(3):
                await f(i)
        asyncio.run(main())
        assert heard == [((0,), "evicted"), ((1,), "evicted")]
        """,
        """
        def fail(key, cause):
            raise LookupError(key)
        caught = []
        sys.unraisablehook = lambda raised: caught.append(raised.exc_value.args)
        cache = vrange.VolatileCache(max_entries=1, on_evict=fail)
        for i in range(3):
            assert cache.get_or_compute(i, lambda: i) == i
        assert caught == [(0,), (1,)]
        """,
        """
        def use(key, cause):
            listen(key, cause)
            if key == 0:
                cache.clear()
                cache["more"] = cache.get_or_compute(9, lambda: 9)
            if key == 3:
                cache.close()
        cache = vrange.VolatileCache(max_entries=2, on_evict=use)
        cache[0] = cache[1] = cache[2] = 0
        assert list(cache) == [9, "more"]
        cache[3] = cache[4] = 3
        try:
            cache[5] = 5
        except ValueError as error:
            assert "closed" in str(error)
        assert heard == [(0, "evicted"), (9, "evicted"), ("more", "evicted"), (3, "evicted")]
        """,
        """
        def wait(key, cause):
            waiter.join(20)
            heard.append(waiter.is_alive())
        def compute():
            waiter.start()
            while not cache._flights.under_way["a"].waiting:
                time.sleep(0.001)
            return bytes(2000)
        cache = vrange.VolatileCache(max_bytes=1000, on_evict=wait)
        waiter = threading.Thread(target=cache.get_or_compute, args=("a", bytes))
        cache.get_or_compute("a", compute)
        assert heard == [False]
        """,
        """
        async def late(key, cause): ...
        for wrong in 3, late:
            with pytest.raises(TypeError, match="on_evict must be"):
                vrange.VolatileCache(on_evict=wrong)
        """,
    ],
    ids=[
        "evicted",
        "expired",
        "refused",
        "purged",
        "async",
        "raises",
        "uses",
        "waits",
        "wrong",
    ],
)
def test_listeners(code: str) -> None:
    elsewhere(code, imports="asyncio, threading, time, psutil, pytest", prelude=PRELUDE)
