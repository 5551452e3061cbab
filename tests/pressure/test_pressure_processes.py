"""A watcher and its process: forks, the end of the interpreter, other threads, greenlets."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from support import succeeds

PRELUDE = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from pathlib import Path
import vrange.pressure
from pressure_support import *
process = FakeProcess(Path(sys.argv[1]), 2)
job = process.cgroup("job")
def watch(**options):
    return vrange.pressure.watch(proc_self=process.proc, interval=0.001, stalled=1, **options)
"""


def run(code: str, tmp_path: Path, **options: Any) -> str:
    return succeeds(textwrap.dedent(PRELUDE) + textwrap.dedent(code), tmp_path, **options)


def test_the_child_of_a_fork_has_none_and_may_start_one(tmp_path: Path) -> None:
    code = """
    cache = vrange.VolatileCache(hot_bytes="8MiB")
    told = []
    watcher = watch(on_level=lambda change: told.append(change.level), min_interval=0)
    job.use(0.97)
    wait_until(lambda: told == ["critical"] and cache._core.hot_limit == 0, "not told")
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            assert watcher.level is None and not watcher.info().running
            assert vrange.pressure.current() is None
            assert cache._core.hot_limit == 8 << 20, "nobody would let it grow again"
            watcher.close()
            heard = []
            with watch(on_level=lambda change: heard.append(change.level)) as own:
                assert own.level == "critical"
                wait_until(lambda: heard == ["critical"], "not told in the child")
            assert told == ["critical"]
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    assert watcher.level == "critical"
    job.use(0.5)
    wait_until(lambda: told == ["critical", "normal"], "the parent's is gone")
    """
    run("from support import wait_until\n" + textwrap.dedent(code), tmp_path)


def test_the_interpreter_ends_with_a_watcher_and_a_callback_that_blocks(tmp_path: Path) -> None:
    code = """
    called = threading.Event()
    def block(change):
        called.set()
        time.sleep(3600)
    watcher = watch(on_level=block)
    job.use(0.9)
    assert called.wait(20)
    print("ends")
    """
    assert run(code, tmp_path, timeout=30) == "ends\n"


def test_in_a_subprocess_and_a_daemon_thread(tmp_path: Path) -> None:
    code = """
    def work():
        with watch() as watcher:
            job.use(0.9)
            reaches(watcher, "elevated")
            print(watcher.level)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    watch()
    """
    assert run(code, tmp_path) == "elevated\n"


def test_with_threads_that_are_greenlets(tmp_path: Path) -> None:
    pytest.importorskip("gevent")
    code = """
    from gevent import monkey
    monkey.patch_all()
    import gevent
    """
    patched = """
    told = []
    with watch(on_level=lambda change: told.append(change.level), min_interval=0) as watcher:
        turns = 0
        job.use(0.97)
        while told != ["critical"]:
            gevent.sleep(0.001)    # the hub goes round: nothing blocks it
            turns += 1
            assert turns < 20000
        with vrange.VolatileCache(hot_bytes="1MiB") as cache:
            assert cache._core.hot_limit == 0
        job.use(0.5)
        while told != ["critical", "normal"]:
            gevent.sleep(0.001)
            turns += 1
            assert turns < 20000
    print(told)
    """
    whole = textwrap.dedent(code) + textwrap.dedent(PRELUDE) + textwrap.dedent(patched)
    assert succeeds(whole, tmp_path) == "['critical', 'normal']\n"
