"""Stats segments: what others read of a process, what they refuse, and what they clear away."""

from __future__ import annotations

import gc
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

import vrange
from vrange import processes, segment
from vrange._core import ffi, lib
from vrange.account import Account


def own_path() -> Path:
    return Path(ffi.string(lib.vrange_segment_path()).decode())


def account(snapshot: segment.Snapshot, name: str) -> segment.AccountCounts:
    found = [one for one in snapshot.accounts if one.name == name]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # From 3.12 on Python warns at a fork with threads: the reserve has one, and deals with it.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


CHILD = """
import sys, vrange
cache = vrange.VolatileCache(name="outside", hot_bytes="1MiB")
cache["a"] = b"x" * 50_000
cache["a"]; cache["a"]
cache.get_or_compute("b", lambda: 1)
print("ready", flush=True)
sys.stdin.read()
"""


def start(directory: Path, code: str = CHILD) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"VRANGE_RUNTIME_DIR": str(directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.communicate("", timeout=30)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


# ---- what it says -------------------------------------------------------------------------------


def test_says_what_the_process_itself_says() -> None:
    with vrange.VolatileCache(name="told", hot_bytes="1MiB") as cache:
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
        }
    finally:
        child.send_signal(signal.SIGCONT)
        end(child)


# ---- its life -----------------------------------------------------------------------------------


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


def test_of_another_pid_namespace_nothing_is_said(directory: Path) -> None:
    child = start(directory)
    (file,) = directory.iterdir()
    data = bytearray(file.read_bytes())
    struct.pack_into("<Q", data, 48, 1)
    other = directory / "1-1.stats"
    other.write_bytes(data)
    assert len(processes.living([directory])) == 1
    assert other.exists()
    end(child)


FORKER = """
import json, os, sys, vrange
from vrange import segment
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
    assert idle(first) == idle(of(parent)) > 0
    assert cache.info().resident_hits == 5
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


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:100], "torn: 100 bytes"),
        (lambda data: data[: len(data) // 2], "torn"),
        (lambda data: b"", "torn: 0 bytes"),
        (lambda data: b"JAVA" + data[4:], "no stats segment"),
        (lambda data: data[:8] + b"\x09" + data[9:], "layout 9"),
        (lambda data: data[:64] + b"\0\0\0\0" + data[68:], "torn"),
        (lambda data: data[:80] + b"\xff\xff\xff\x7f" + data[84:], "tables don't fit"),
        (lambda data: data[:108] + b"\xff\xff\xff\x7f" + data[112:], "tables don't fit"),
    ],
)
def test_torn_and_foreign_files(directory: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    Account("any", lib.VRANGE_KIND_CACHE)
    file = directory / "4000000-1.stats"
    file.write_bytes(change(own_path().read_bytes()))
    with pytest.raises(segment.SegmentRefusedError, match=message):
        segment.read(file)
    assert processes.living([directory]) == []


def test_random_headers_are_refused_or_read_but_never_worse(directory: Path) -> None:
    import random

    whole = own_path().read_bytes()
    chance = random.Random(5)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(8, 300)] = chance.randrange(256)
        try:
            with memoryview(data) as view:
                segment.parse(view)
        except segment.SegmentRefusedError:
            pass


def test_links_directories_and_pipes(directory: Path) -> None:
    (directory / "1-1.stats").symlink_to(own_path())
    (directory / "1-2.stats").mkdir()
    os.mkfifo(directory / "1-3.stats")
    assert processes.living([directory]) == []
    with pytest.raises(OSError, match="symbolic link"):
        segment.read(directory / "1-1.stats")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_another_users_segment(directory: Path) -> None:
    file = directory / "1-1.stats"
    file.write_bytes(own_path().read_bytes())
    os.chown(file, 12345, 12345)
    with pytest.raises(segment.SegmentRefusedError, match="of user 12345"):
        segment.read(file)
    os.chown(directory, 12345, 12345)
    assert processes.living([directory]) == []


COUNTS = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import vrange
    from vrange._core import ffi, lib
    cache = vrange.VolatileCache(name="one")
    vrange.VolatileCache(name="two")
    cache.get_or_compute("k", lambda: b"v")
refusal = lib.vrange_segment_refusal()
print(json.dumps({
    "warned": [str(w.message) for w in caught],
    "misses": cache.info().misses,
    "latencies": sum(h.count for h in vrange.stats().time_to_free.values()),
    "in_memory": lib.vrange_segment_path() == ffi.NULL,
}))
"""


def check_counts_in_memory(**environment: str) -> str:
    done = run(COUNTS, **environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["in_memory"]
    assert told["misses"] == 1
    assert told["latencies"] >= 1
    (warning,) = told["warned"]
    return warning


def test_without_a_directory_it_counts_on_with_one_warning(directory: Path) -> None:
    missing = directory / "not" / "there"
    assert "No such file" in check_counts_in_memory(VRANGE_RUNTIME_DIR=str(missing))
    (directory / "file").write_text("")
    warning = check_counts_in_memory(VRANGE_RUNTIME_DIR=str(directory / "file"))
    assert "Not a directory" in warning


def test_in_a_directory_that_others_may_write_it_makes_no_file(directory: Path) -> None:
    directory.chmod(0o777)
    warning = check_counts_in_memory(VRANGE_RUNTIME_DIR=str(directory))
    assert "not permitted" in warning
    assert list(directory.iterdir()) == []


def test_in_a_read_only_directory_it_counts_on() -> None:
    # Not even root can make a file there.
    assert "/proc/fs" in check_counts_in_memory(VRANGE_RUNTIME_DIR="/proc/fs")


def test_falls_back_from_the_runtime_directory(directory: Path) -> None:
    done = run(
        "import vrange; from vrange._core import ffi, lib\n"
        "print(ffi.string(lib.vrange_segment_path()).decode())",
        XDG_RUNTIME_DIR=str(directory / "missing"),
        VRANGE_RUNTIME_DIR="",
    )
    assert done.stdout.startswith("/dev/shm/vrange-"), done
    done = run(
        "import vrange; from vrange._core import ffi, lib\n"
        "print(ffi.string(lib.vrange_segment_path()).decode())",
        XDG_RUNTIME_DIR=str(directory),
        VRANGE_RUNTIME_DIR="",
    )
    assert done.stdout.startswith(f"{directory}/vrange/"), done


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_file_system_is_no_sigbus(directory: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", str(directory)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("may not mount here")
    try:
        warning = check_counts_in_memory(VRANGE_RUNTIME_DIR=str(directory))
        assert "No space left" in warning
        subprocess.run(["mount", "-o", "remount,size=128k", str(directory)], check=True)
        done = run(
            "import vrange, os\n"
            "caches = [vrange.VolatileCache(name=f'c{n}', arena_bytes='1MiB') for n in range(60)]\n"
            "for n, cache in enumerate(caches): cache.get_or_compute(n, lambda: n)\n"
            "from vrange import segment; from vrange._core import ffi, lib\n"
            "accounts = segment.read(ffi.string(lib.vrange_segment_path())).accounts\n"
            "assert sum(a.requests['miss'] for a in accounts) == 60\n"
            "assert [a.name for a in accounts].count('other') == 1\n"
            "pid = os.fork()\n"
            "if pid == 0: caches[59].get_or_compute('x', lambda: 1); os._exit(0)\n"
            "assert os.waitpid(pid, 0)[1] == 0\n",
            VRANGE_RUNTIME_DIR=str(directory),
        )
        assert done.returncode == 0, done
    finally:
        subprocess.run(["umount", str(directory)], check=True)


# ---- names --------------------------------------------------------------------------------------


def test_counts_of_a_name_go_on_when_it_is_opened_again() -> None:
    for times in range(1, 4):
        with vrange.VolatileCache(name="reopened") as cache:
            cache.get_or_compute("k", lambda: b"v")
            assert cache.info().misses == 1
            assert account(segment.read(own_path()), "reopened").requests["miss"] == times
        del cache
        gc.collect()
        assert account(segment.read(own_path()), "reopened").closed


MANY = """
import gc, threading, vrange
from vrange import segment
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


def test_a_warning_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Account("quiet", lib.VRANGE_KIND_CACHE)


def test_reading_takes_no_time_to_speak_of() -> None:
    caches = [vrange.VolatileCache(name=f"many-{n}", arena_bytes="1MiB") for n in range(20)]
    for cache in caches:
        cache.get_or_compute(1, lambda: b"v")

    def seconds() -> float:
        begun = time.perf_counter()
        segment.read(own_path())
        return time.perf_counter() - begun

    assert min(seconds() for _ in range(20)) < 0.05  # others may be at work: the least counts
