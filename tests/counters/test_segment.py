"""Stats segments: what others read of a process, and what is left when it is gone."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import struct
import threading
import time
from pathlib import Path

import pytest
from segment_support import CHILD, account, end, own_path, run, start
from support import wait_until

import vrange
from vrange._core import lib
from vrange._counters import processes, segment


def test_says_what_the_process_itself_says() -> None:
    with vrange.VolatileCache[str, bytes](name="told", hot_bytes="1MiB") as cache:
        cache["large"] = b"x" * 100_000
        assert cache.get_or_compute("small", lambda: b"y") == b"y"
        for _ in range(3):
            assert cache["large"]
        found = account(segment.read(own_path()), "told")
        info = cache.info()
        assert found.requests["hot"] == info.hot_hits == 2
        assert found.requests["resident"] == info.resident_hits == 1
        assert found.requests["miss"] == info.misses == 1
        assert found.hot_bytes == info.hot_bytes > 0
        assert found.regenerate.count == info.regenerated == 1
        assert found.regenerate.sum_ns == pytest.approx(info.regenerate_seconds * 1e9)
        states = ("pinned", "idle", "offered", "purged")
        for state in states:
            assert getattr(found, f"{state}_bytes") >= 0
        assert sum(getattr(found, f"{state}_bytes") for state in states) == sum(
            getattr(info, f"{state}_bytes") for state in states
        )


def test_latencies_are_those_of_stats() -> None:
    lib.vrange_latency_record(lib.VRANGE_KIND_HEAP, lib.VRANGE_FREE_RELEASED, 12_345)
    threads = [
        threading.Thread(
            target=lib.vrange_latency_record,
            args=(lib.VRANGE_KIND_HEAP, lib.VRANGE_FREE_RELEASED, 54_321),
        )
        for _ in range(12)  # more than there are shards
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = vrange.stats().time_to_free["heap", "released"]
    found = segment.read(own_path()).latencies["time_to_free", "heap", "released"]
    assert tuple(found.buckets) == told.buckets
    assert found.sum_ns == pytest.approx(told.sum_seconds * 1e9)
    for percent in (1, 50, 99):
        assert found.percentile(percent) == pytest.approx(told.percentile(percent))
    floors = [floor * 1e-9 for floor in segment.bucket_floors_ns(len(found.buckets))]
    assert floors == pytest.approx(list(told.floors))


def test_mode_and_place() -> None:
    found = own_path().stat()
    assert found.st_mode & 0o777 == 0o600
    assert own_path().parent.stat().st_mode & 0o077 == 0
    assert own_path().parent in processes.directories()


def test_another_process_is_read_while_it_is_stopped(directory: Path) -> None:
    child = start(directory)
    try:
        child.send_signal(signal.SIGSTOP)
        (found,) = processes.living([directory])
        assert found.pid == child.pid
        assert found.rung == vrange.capabilities().rung
        assert account(found, "outside").requests == {
            "hot": 1,
            "resident": 1,
            "purged": 0,
            "miss": 1,
            "waited": 0,
            "peer": 0,
        }
    finally:
        child.send_signal(signal.SIGCONT)
        end(child)


def test_gone_at_exit(directory: Path) -> None:
    child = start(directory)
    assert len(list(directory.iterdir())) == 1
    end(child)
    assert list(directory.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away(directory: Path) -> None:
    child = start(directory)
    child.kill()
    end(child)
    assert len(list(directory.iterdir())) == 1
    assert processes.living([directory]) == []
    assert list(directory.iterdir()) == []
    child = start(directory)  # and so it is by the next process that begins
    child.kill()
    end(child)
    end(start(directory))
    assert list(directory.iterdir()) == []


MAIN_ENDS = """
import ctypes, sys, threading, vrange
cache = vrange.VolatileCache(name="outside", hot_bytes="1MiB")
cache["a"] = b"x" * 50_000
def go_on():
    for line in sys.stdin:
        cache["a"]
        print("read", flush=True)
threading.Thread(target=go_on).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_main_thread_has_ended_goes_on_counting(directory: Path) -> None:
    with start(directory, MAIN_ENDS) as child:  # it ends with its standard input
        assert child.stdin is not None
        assert child.stdout is not None
        stat = Path(f"/proc/{child.pid}/stat")
        wait_until(lambda: ") Z " in stat.read_text(), "its main thread has not ended")
        (path,) = processes.segment_files(directory)
        hits = []
        for _ in range(2):
            print("go on", file=child.stdin, flush=True)
            assert child.stdout.readline() == "read\n"
            (found,) = processes.living([directory])
            requests = account(found, "outside").requests
            hits.append(requests["hot"] + requests["resident"])
        assert hits == [1, 2]
        child.kill()
        child.wait()
        assert processes.look(path)[1] is False
        assert processes.living([directory]) == []


def test_a_process_that_was_replaced_by_exec_is_gone(directory: Path) -> None:
    code = CHILD.replace(
        'print("ready"', 'import os; os.execvp("sh", ["sh", "-c", "echo ready; cat"]); print("no"'
    )
    child = start(directory, code)
    assert len(list(directory.iterdir())) == 1
    assert processes.living([directory]) == []
    assert list(directory.iterdir()) == []
    end(child)


def test_a_later_process_with_the_same_id_is_not_taken_for_it(directory: Path) -> None:
    child = start(directory)
    (file,) = directory.iterdir()
    data = bytearray(file.read_bytes())
    (ticks,) = struct.unpack_from("<Q", data, 32)
    struct.pack_into("<Q", data, 32, ticks - 1)
    earlier = directory / f"{child.pid}-{ticks - 1}.stats"
    earlier.write_bytes(data)
    assert [found.start_ticks for found in processes.living([directory])] == [ticks]
    assert not earlier.exists()
    end(child)


def test_of_a_living_process_of_another_pid_namespace_nothing_is_said(directory: Path) -> None:
    child = start(directory)
    (file,) = directory.iterdir()
    data = bytearray(file.read_bytes())
    struct.pack_into("<Q", data, 48, 1)
    other = directory / "1-1.stats"
    other.write_bytes(data)
    with other.open("r+b") as opened, mmap.mmap(opened.fileno(), 0):
        assert len(processes.living([directory])) == 1
        assert other.exists()
        end(start(directory))
        assert other.exists()
    end(child)


def test_what_a_killed_process_of_another_pid_namespace_left_is_removed(directory: Path) -> None:
    child = start(directory)
    (file,) = directory.iterdir()
    is_told = lib.vrange_segment_is_in_use(os.fsencode(file)) >= 0  # not on every file system
    data = bytearray(file.read_bytes())
    struct.pack_into("<Q", data, 48, 1)
    left = [directory / f"{number}-1.stats" for number in (1, 2)]  # process 1 exists here, too
    for other in left:
        other.write_bytes(data)
    assert len(processes.living([directory])) == 1
    assert [other.exists() for other in left] == [not is_told] * 2
    for other in left:
        other.write_bytes(data)
    end(start(directory))  # a process that begins removes them as well
    assert [other.exists() for other in left] == [not is_told] * 2
    end(child)


FORKER = """
import json, os, sys, vrange
from vrange._counters import segment
from vrange._core import ffi, lib
path = lambda: ffi.string(lib.vrange_segment_path()).decode()
cache = vrange.VolatileCache(name="forked", hot_bytes=0)
cache["a"] = b"x" * 50_000
for _ in range(5): cache["a"]
of = lambda p: next(a for a in segment.read(p).accounts if a.name == "forked")
parent = path()
if (pid := os.fork()) == 0:
    first = of(path())
    assert path() != parent
    assert first.requests["resident"] == 0 and first.reserved_bytes > 0, first
    idle = lambda a: a.idle_bytes + a.offered_bytes
    assert first.purged_bytes == idle(of(parent)) > 0 == idle(first)
    assert cache.info().resident_hits == 5
    cache["a"] = b"x" * 50_000
    for _ in range(7): cache["a"]
    assert of(path()).requests["resident"] == 7
    assert cache.info().resident_hits == 12
    assert not segment.read(path()).latencies.get(("time_to_free", "cache", "offered"))
    sys.exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert of(parent).requests["resident"] == 5
assert len(os.listdir(os.path.dirname(parent))) == 1
"""


def test_the_child_of_a_fork_counts_for_itself(directory: Path) -> None:
    done = run(FORKER, VRANGE_RUNTIME_DIR=str(directory))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(directory.iterdir()) == []


def test_counts_of_a_name_go_on_when_it_is_opened_again() -> None:
    for times in range(1, 4):
        with vrange.VolatileCache[str, bytes](name="reopened") as cache:
            cache.get_or_compute("k", lambda: b"v")
            assert cache.info().misses == 1
            assert account(segment.read(own_path()), "reopened").requests["miss"] == times
        del cache
        gc.collect()
        # What a large cache of another test left to the background goes first.
        wait_until(
            lambda: account(segment.read(own_path()), "reopened").closed, "its account is closed"
        )


MANY = """
import gc, threading, vrange
from vrange._counters import segment
from vrange._core import ffi, lib
path = ffi.string(lib.vrange_segment_path())
total = lambda s: sum(a.requests["miss"] for a in s.accounts)
seen, stop = [0], threading.Event()
def watch():
    while not stop.is_set():
        seen.append(total(segment.read(path)))
thread = threading.Thread(target=watch)
thread.start()
for number in range(1500):
    cache = vrange.VolatileCache(name=f"name-{number}", arena_bytes="1MiB")
    cache.get_or_compute(1, lambda: b"v")
    cache.close()
    del cache
stop.set(); thread.join()
assert seen == sorted(seen)
last = segment.read(path)
assert total(last) == 1500, total(last)
assert len(last.accounts) <= 261
kept = [vrange.VolatileCache(name=f"open-{n}", arena_bytes="1MiB") for n in range(300)]
for cache in kept: cache.get_or_compute(1, lambda: b"v")
last = segment.read(path)
assert total(last) == 1800 and len(last.accounts) <= 261
"""


def test_names_without_end_stay_bounded_and_no_sum_goes_back(directory: Path) -> None:
    done = run(MANY, VRANGE_RUNTIME_DIR=str(directory))
    assert (done.returncode, done.stderr) == (0, "")


def test_reading_takes_no_time_to_speak_of() -> None:
    caches = [
        vrange.VolatileCache[int, bytes](name=f"many-{n}", arena_bytes="1MiB") for n in range(20)
    ]
    for cache in caches:
        cache.get_or_compute(1, lambda: b"v")

    def seconds() -> float:
        begun = time.perf_counter()
        segment.read(own_path())
        return time.perf_counter() - begun

    assert min(seconds() for _ in range(20)) < 0.05  # others may be at work: the least counts
