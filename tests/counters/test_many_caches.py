"""More caches than the segment has names for: each one's figures are its own, and sums are true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from segment_support import end, run, start

from vrange.cli import main

# Each cache has other figures than all others: `number` hits and a miss.
CACHES = """
import gc, os, sys, vrange
from vrange._counters import segment
from vrange._core import ffi, lib
path = lambda: ffi.string(lib.vrange_segment_path())
def of(number):
    @vrange.cached(name=f"function-{number}")
    def function(key): return b"%d" % number
    return function
def ask(function, times):
    for _ in range(times): function(1)
def figures(functions): return [tuple(f.cache_info())[:2] for f in functions]
def in_segment():
    accounts = segment.read(path()).accounts
    assert len(accounts) <= 261
    return sum(sum(one.requests.values()) for one in accounts if one.kind == "cache")
def in_stats():
    return sum(one.hot_hits + one.resident_hits + one.misses
               for one in vrange.stats().accounts if one.kind == "cache")
COUNT = 300
functions = [of(number) for number in range(COUNT)]
for number, function in enumerate(functions): ask(function, number + 1)
own = [(number, 1) for number in range(COUNT)]
asked = COUNT * (COUNT + 1) // 2
"""

OWN = """
assert figures(functions) == own, figures(functions)[250:]
assert in_stats() == in_segment() == asked, (in_stats(), in_segment(), asked)
caches = [one for one in vrange.stats().accounts if one.kind == "cache"]
assert sum(one.regenerated for one in caches) == COUNT
accounts = segment.read(path()).accounts
assert sum(one.regenerate.count for one in accounts) == COUNT
for state in ("reserved", "pinned", "idle", "offered", "purged", "hot", "object"):
    told = sum(getattr(one, state + "_bytes") for one in caches)
    assert told == sum(getattr(one, state + "_bytes") for one in accounts if one.kind == "cache")
assert sum(one.hot_bytes for one in caches) == sum(f.cache_info().hot_bytes for f in functions) > 0
"""


def check(code: str, directory: Path, **environment: str) -> None:
    done = run(CACHES + code, VRANGE_RUNTIME_DIR=str(directory), **environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_has_figures_of_its_own_and_sums_are_true(directory: Path) -> None:
    check(OWN, directory)


def test_also_in_memory_that_no_other_process_sees() -> None:
    code = OWN.replace("segment.read(path())", "segment.parse(here())").replace(
        "assert figures", "assert lib.vrange_segment_path() == ffi.NULL\nassert figures", 1
    )
    here = """
here = lambda: memoryview(ffi.buffer(ffi.cast("char *", lib.vrange_segment_address()),
                                     lib.vrange_segment_bytes()))
def in_segment():
    accounts = segment.parse(here()).accounts
    return sum(sum(one.requests.values()) for one in accounts if one.kind == "cache")
"""
    done = run(CACHES + here + code, VRANGE_RUNTIME_DIR="/proc/none")
    assert done.returncode == 0, done.stderr


def test_no_sum_goes_back_when_they_close_and_others_open(directory: Path) -> None:
    code = """
before = in_segment()
for turn in range(3):
    function = None
    del functions[270:]
    gc.collect()
    assert in_segment() == in_stats() == before
    for number in range(270, COUNT):
        functions.append(of(number + 1000 * (turn + 1)))
        assert functions[-1].cache_info()[:2] == (0, 0)
        assert in_segment() == in_stats() == before
    [ask(function, 3) for function in functions[270:]]
    before += 3 * (COUNT - 270)
    assert figures(functions) == own[:270] + [(2, 1)] * (COUNT - 270)
    assert in_segment() == in_stats() == before
with segment.open_segment(path()) as opened:
    used = opened.fields.overflow_used
assert used == COUNT - lib.SEGMENT_NAMES, "slots of closed ones are used again"
"""
    check(code, directory)


def test_the_child_of_a_fork_goes_on_with_each(directory: Path) -> None:
    code = """
parent = path()
if (pid := os.fork()) == 0:
    assert path() != parent
    assert in_segment() == 0
    assert figures(functions) == own
    assert in_stats() == asked
    for function in functions[260:]: ask(function, 2)
    later = [(hits + 2, 1) if at >= 260 else (hits, 1) for at, (hits, _) in enumerate(own)]
    found = [(hits, misses) for hits, misses in figures(functions)]
    assert [sum(one) for one in found] == [sum(one) for one in later], found[255:]
    assert in_segment() == 2 * (COUNT - 260)
    assert in_stats() == asked + 2 * (COUNT - 260)
    del functions[280:]; gc.collect()
    functions.append(of(5000))
    assert figures(functions[-1:]) == [(0, 0)]
    assert in_stats() == asked + 2 * (COUNT - 260)
    assert in_segment() == 2 * (COUNT - 260)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert figures(functions) == own and in_segment() == in_stats() == asked
"""
    check(code, directory)


SCRAPED = """
import prometheus_client
registry = prometheus_client.CollectorRegistry()
vrange.metrics.register(registry, processes="group")
def scraped():
    return sum(sample.value for family in registry.collect() for sample in family.samples
               if sample.name == "vrange_cache_requests_total")
"""


@pytest.mark.parametrize("ending", ["sys.exit(0)", "os._exit(0)"])
def test_a_scrape_of_the_group_has_all(directory: Path, ending: str) -> None:
    code = f"""
assert scraped() == asked, (scraped(), asked)
if (pid := os.fork()) == 0:
    for function in functions: ask(function, 1)
    assert scraped() == asked + COUNT
    {ending}
assert os.waitpid(pid, 0)[1] == 0
assert scraped() == asked + COUNT, (scraped(), asked + COUNT)
"""
    check(SCRAPED + code, directory, VRANGE_SERVICE="many")


def test_top_shows_the_bytes_of_all(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VRANGE_RUNTIME_DIR", str(directory))
    code = """
import threading, time
threading.Thread(target=lambda: [ask(f, 1) or time.sleep(0) for _ in iter(int, 1)
                                 for f in functions[270:]], daemon=True).start()
open(os.environ["VRANGE_RUNTIME_DIR"] + "/told", "w").write(str(sum(
    f.cache_info().hot_bytes for f in functions)))
print("ready", flush=True)
sys.stdin.read()
"""
    child = start(directory, CACHES + code)
    try:
        assert main(["top", str(child.pid), "--once", "--json", "--interval", "0.3"]) == 0
        (process,) = json.loads(capsys.readouterr().out)
    finally:
        end(child)
    assert len(process["accounts"]) <= 261
    caches = {one["name"]: one for one in process["accounts"] if one["kind"] == "cache"}
    told = int((directory / "told").read_text())
    assert sum(one["bytes"]["hot"] for one in caches.values()) == told > 0
    assert caches["other"]["requests_per_second"] > 100


def test_beyond_the_last_place_figures_are_shared_and_sums_true(directory: Path) -> None:
    code = """
import os, sys
from vrange._counters import segment
from vrange._core import ffi, lib
path = lambda: ffi.string(lib.vrange_segment_path())
one = ffi.new("vrange_account_counters *")
places = lib.SEGMENT_NAMES + lib.SEGMENT_OVERFLOWS
opened = [lib.vrange_account_open(b"%d" % at, lib.VRANGE_KIND_ARENA) for at in range(places + 5)]
for account in opened: lib.vrange_account_refused(account)
def refused(account):
    lib.vrange_account_read(account, one)
    return one.refused
def total(): return sum(account.refused for account in segment.read(path()).accounts)
assert {refused(account) for account in opened[:places]} == {1}
assert {refused(account) for account in opened[places:]} == {5}
assert total() == places + 5 and len(segment.read(path()).accounts) == lib.SEGMENT_NAMES + 1
if (pid := os.fork()) == 0:
    assert total() == 0
    for account in opened: lib.vrange_account_refused(account)
    assert {refused(account) for account in opened[:places]} == {2}
    assert total() == places + 5
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
for account in opened: lib.vrange_account_close(account)
assert total() == places + 5
again = [lib.vrange_account_open(b"again %d" % at, lib.VRANGE_KIND_ARENA) for at in range(places)]
assert {refused(account) for account in again} == {0} and total() == places + 5
"""
    done = run(code, VRANGE_RUNTIME_DIR=str(directory))
    assert (done.returncode, done.stderr) == (0, "")
