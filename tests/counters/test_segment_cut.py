"""Other code cuts the file of a process's own counters: the process goes on, and says so once."""

from __future__ import annotations

from pathlib import Path

import pytest
from segment_support import run

BEGIN = """
import json, os, sys, threading, warnings, vrange
from vrange._core import ffi, lib
from vrange._counters import service
value = lambda n: b"%d " % n * 3000
def use(cache, times):
    for _ in range(times):
        for n in range(60):
            assert cache.get_or_compute(n, lambda: value(n)) == value(n)
def counted(name):
    (one,) = [a for a in service.own_snapshot().accounts if a.name == name]
    return sum(one.requests.values())
cache = vrange.VolatileCache(name="cut", hot_bytes=0)
use(cache, 2)
assert counted("cut") == 120
path = ffi.string(lib.vrange_segment_path()).decode()
cut = lambda: os.truncate(path, LEFT if LEFT >= 0 else os.path.getsize(path) + LEFT)
"""
TELLS = "vrange: other code cut the file of this process's counters short"


def check(directory: Path, code: str, left: int, *, times: tuple[int, ...] = (1,)) -> None:
    done = run(f"LEFT = {left}\n{BEGIN}{code}", VRANGE_RUNTIME_DIR=str(directory))
    assert done.returncode == 0, done
    told = done.stderr.splitlines()
    assert all(line.startswith(TELLS) for line in told), told
    assert len(told) in times, told
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("left", [0, 40_000])
def test_a_process_whose_file_is_cut_goes_on_and_says_so_once(directory: Path, left: int) -> None:
    code = """
    cut()
    use(cache, 3)
    info = cache.info()
    assert 0 < counted("cut") <= 180 and 0 < info.hits + info.misses <= 180
    before = counted("cut")
    use(cache, 1)
    assert counted("cut") == before + 60
    with vrange.VolatileCache(name="later", hot_bytes=0) as later:
        use(later, 2)
        assert counted("later") == 120 == later.info().hits + later.info().misses
        assert counted("cut") == before + 60
    assert lib.vrange_segment_path() == ffi.NULL
    assert b"cut" in ffi.string(lib.vrange_segment_refusal())
    assert sum(h.count for h in vrange.stats().time_to_reallocate.values()) > 0
    """
    check(directory, "if True:" + code, left)


def test_the_names_and_what_is_held_are_known_afterwards(directory: Path) -> None:
    code = """
    import time
    held = lambda: (lambda a: a.idle_bytes + a.offered_bytes + a.purged_bytes + a.pinned_bytes)(
        next(a for a in service.own_snapshot().accounts if a.name == "cut"))
    more = [vrange.VolatileCache(name=f"c{n}", arena_bytes="1MiB") for n in range(20)]
    before, pause = held(), 1.5  # it is noted once a second, while anything is used
    end = time.monotonic() + pause
    while time.monotonic() < end: use(cache, 1)
    cut()
    use(cache, 1)
    assert lib.vrange_segment_path() == ffi.NULL
    names = [a.name for a in service.own_snapshot().accounts]
    assert {f"c{n}" for n in range(20)} | {"cut"} <= set(names)
    assert held() == before > 0
    """
    check(directory, "if True:" + code, 0)


def test_threads_that_count_meanwhile_go_on(directory: Path) -> None:
    code = """
    caches = [vrange.VolatileCache(name=f"t{n}", hot_bytes=0) for n in range(4)]
    threads = [threading.Thread(target=use, args=(c, 60)) for c in caches]
    for thread in threads: thread.start()
    use(cache, 5)
    cut()
    for thread in threads: thread.join()
    use(cache, 1)
    assert lib.vrange_segment_path() == ffi.NULL
    """
    check(directory, "if True:" + code, 0)


def test_a_child_has_a_file_of_its_own_again(directory: Path) -> None:
    code = """
    cut()
    if NOTICED: use(cache, 1)
    if (pid := os.fork()) == 0:
        use(cache, 1)
        own = ffi.string(lib.vrange_segment_path()).decode()
        assert own != path and os.path.getsize(own) > 4096
        assert counted("cut") == 60
        os.truncate(own, 0)
        use(cache, 1)
        assert lib.vrange_segment_path() == ffi.NULL
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    use(cache, 1)
    """
    for noticed in False, True:
        # The child may meet the cut of its parent's file as well, if it was not met before.
        text = f"NOTICED = {noticed}\nif True:" + code
        check(directory, text, 0, times=(2,) if noticed else (2, 3))
