"""The demo: its parts by themselves, and whole runs that end well, badly and early."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from rich.console import Console

from vrange._cgroup.tree import find_hierarchies
from vrange.cli import main
from vrange.cli.demo import view as views
from vrange.cli.demo.child import Child, Ending
from vrange.cli.demo.contenders import Cache, Dict, Lru, Volatile
from vrange.cli.demo.material import NotPython, Value, choose, make, stamp
from vrange.cli.demo.messages import (
    PHASES,
    Job,
    Latency,
    Message,
    Result,
    Sample,
    Sizing,
    from_line,
    to_line,
)
from vrange.cli.demo.outcome import Run, summary
from vrange.cli.demo.worker import skewed
from vrange.cli.durations import duration
from vrange.cli.memory_cgroup import MemoryCgroup

MIB = 1 << 20
PATIENCE_SECONDS = 30  # for what happens within one, on a machine that is busy
JOB = Job("vrange", 128 * MIB, True, 30 * MIB, 0.2, 1.0)
SIZING = Sizing(100, 40, 30 * MIB, 40 * MIB, 60 * MIB, "refault")


def sample(phase: str, **changes: Any) -> Sample:
    fields: dict[str, Any] = {
        "phase": phase,
        "seconds": 1.5,
        "requests": 100,
        "hits": 75,
        "purged": 20,
        "recomputed": 25,
        "recompute_seconds": 0.25,
        "waited_seconds": 0.5,
        "wrong": 0,
        "app_bytes": 60 * MIB,
        "usage_bytes": 120 * MIB,
        "bytes": {"pinned": MIB, "idle": 2 * MIB, "offered": MIB, "purged": 0, "hot": MIB},
        "last": True,
    }
    return Sample(**fields | changes)


# ---- parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", [JOB, SIZING, sample("before"), Result([Latency("x", 1, 0.5, 0.75)], over=True)]
)
def test_messages_come_through_as_they_are(message: Message) -> None:
    assert from_line(to_line(message)) == message


def test_the_material_is_the_same_every_time() -> None:
    keys = choose(MIB, np.random.default_rng(1))
    assert keys == choose(MIB, np.random.default_rng(1))
    assert {what for what, _ in keys} == {"syntax tree", "tokens", "shingles"}
    assert [what for what, _ in keys[: len(keys) // 3]] == ["shingles"] * (len(keys) // 3)
    path = Path(os.__file__)
    for what in ("syntax tree", "tokens", "shingles"):
        value = make((what, str(path)))
        assert len(value) > 1000
        assert stamp(value) == stamp(make((what, str(path))))


def test_a_file_that_is_not_python_is_told(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    for source in (b"def", b"(", b"# coding: none\n", b"x = '\xff'\n"):
        file.write_bytes(source + b" " * 8)
        with pytest.raises(NotPython, match=r"bad\.py"):
            make(("syntax tree", str(file)))


def test_requests_are_skewed_and_the_same_every_time() -> None:
    keys = [("tokens", str(number)) for number in range(100)]

    def count(seed: int) -> dict[tuple[str, str], int]:
        requests = skewed(keys, np.random.default_rng(seed))
        counts = dict.fromkeys(keys, 0)
        for _ in range(5000):
            counts[next(requests)] += 1
        return counts

    counts = count(1)
    assert counts == count(1)
    most = sorted(counts.values(), reverse=True)
    assert sum(most[:10]) > 0.5 * 5000


@pytest.mark.parametrize("contender", [Dict, Volatile, lambda: Lru(1 << 30)])
def test_contenders_remember(contender: Callable[[], Cache]) -> None:
    cache = contender()
    value = np.arange(10_000)
    computed = []

    def compute() -> Value:
        computed.append(1)
        return value

    for _ in range(3):
        assert np.array_equal(cache.get(("tokens", "a"), compute), value)
    assert (len(computed), cache.counts()) == (1, (2, 0))
    assert sum(cache.bytes_by_state().values()) >= value.nbytes


def test_the_lru_lets_the_least_recent_go() -> None:
    cache = Lru(250)
    for key in ("a", "b", "a", "c", "a", "b"):
        cache.get(("tokens", key), lambda: b"x" * 100)
    assert cache.counts()[0] == 2  # both of "a"; "b" went for "c"
    assert cache.bytes_by_state() == {"kept": 200}


def test_what_the_kernel_took_is_computed_again() -> None:
    cache = Volatile()
    key = ("tokens", "a")
    for _ in range(2):
        cache.get(key, lambda: np.ones(100_000))
        cache.discard(key)
    assert cache.counts() == (0, 1)


@pytest.mark.parametrize(
    ("ending", "says"),
    [
        (Ending(0), "finished"),
        (Ending(-9, oom_kills=1), r"killed by the kernel \(SIGKILL, oom_kill 1\)"),
        (Ending(-9), "killed by SIGKILL, not because of memory"),
        (Ending(-15), "killed by SIGTERM, not because of memory"),
        (Ending(3), r"failed \(exit status 3\)"),
        (Ending(0, over=True), "over the limit"),
    ],
)
def test_an_ending_is_told_as_the_system_tells_it(ending: Ending, says: str) -> None:
    assert re.fullmatch(says, str(ending))
    assert ending.finished == (says == "finished")


def test_the_summary_tells_what_was_measured() -> None:
    good = Run("vrange", SIZING, {phase: sample(phase) for phase in PHASES})
    good.ending = Ending(0, peak_bytes=127 * MIB)
    good.latencies = [Latency("time-to-free, released", 42, 2.5e-7, 1e-6)]
    bad = Run("dict", SIZING, {"during": sample("during", last=False)}, most_bytes=120 * MIB)
    bad.ending = Ending(-9, oom_kills=1, error="the last word")
    text = summary([good, bad])
    assert re.search(r"hit ratio during +0\.750 +0\.750 \(of 100\)\n", text)
    assert re.search(r"hit ratio after +0\.750 +-\n", text)
    assert re.search(r"waited for values before +0\.50 s +-\n", text)
    assert re.search(r"values recomputed +75 +25\n", text)
    assert re.search(r"most memory used +127\.0 MiB +120\.0 MiB\n", text)
    assert re.search(r"end +finished +killed\n", text)
    assert "dict: killed by the kernel (SIGKILL, oom_kill 1) 1.5 s into 'during'" in text
    assert "the last word" in text
    assert re.search(r"time-to-free, released +42 +250 ns +1 µs", text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 ns"), (2.5e-8, "25 ns"), (1e-6, "1 µs"), (0.0314, "31.4 ms"), (12.0, "12 s")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def show(view: views.View) -> None:
    with view:
        view.begin(JOB)
        view.sample(JOB, sample("fill", requests=0, hits=0, last=False))
        view.sizing(JOB, SIZING)
        for phase in PHASES:
            view.sample(JOB, sample(phase))
        view.end(JOB, Run("vrange", ending=Ending(-9, oom_kills=1)))


def test_the_table_shows_phases_and_the_bar() -> None:
    file = io.StringIO()
    show(views.Table(Console(file=file, force_terminal=True, width=120, color_system=None)))
    text = file.getvalue()
    for word in (*PHASES, "0.750", "offered 1.0 MiB", "120.0 MiB of 128.0 MiB", "oom_kill 1"):
        assert word in text


def test_lines_show_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    show(views.Lines())
    text = capsys.readouterr().out
    for word in (*PHASES, "purged 20", "offered 1.0", "usage 120.0 of 128.0 MiB", "oom_kill 1"):
        assert word in text


def test_lines_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert isinstance(views.make_view(MIB, None), views.Lines)


@pytest.mark.parametrize(
    "arguments", [["--limit", "1MiB"], ["--limit", "much"], ["--seconds", "0"], ["--seconds", "-1"]]
)
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *arguments]) == 2
    assert capsys.readouterr().err.startswith("vrange demo: ")


# ---- whole runs -------------------------------------------------------------------------------


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A demo in a process group of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "vrange.cli", "demo", "--plain", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], word: str) -> str:
    """Reads what it prints, up to a line with the word."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if word in line:
            return seen
    pytest.fail(f"never said {word!r}: {seen}")


def child_of(process: subprocess.Popen[str]) -> psutil.Process:
    (child,) = psutil.Process(process.pid).children()
    return child


def is_gone(child: psutil.Process) -> bool:
    """Whether it ends while we are patient. A zombie is its parent's, or init's, to bury."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if not child.is_running() or child.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def cgroups_of(process: subprocess.Popen[str]) -> list[Path]:
    """The cgroups that this demo made and that are still there."""
    places = {
        directory
        for hierarchy in find_hierarchies(Path("/proc/self"))
        for directory in hierarchy.ancestors()
    }
    return [made for place in places for made in place.glob(f"vrange-demo-{process.pid}-*")]


@pytest.fixture
def needs_cgroup() -> None:
    reason = MemoryCgroup.unavailable()
    if reason is not None:
        pytest.skip(reason=reason)


@pytest.mark.memory_cgroup
@pytest.mark.usefixtures("needs_cgroup")
def test_under_a_cgroup_the_dict_is_killed_and_the_cache_is_not() -> None:
    with demo("--limit", "96MiB", "--seconds", "6") as process:
        out, err = process.communicate()
        assert (process.returncode, err) == (0, ""), out
        assert cgroups_of(process) == []
    assert re.search(r"end +finished +killed +finished\n", out), out
    assert "dict: killed by the kernel (SIGKILL, oom_kill 1)" in out
    assert re.search(r"hit ratio before +1\.000 +1\.000", out)
    assert re.search(r"wrong values +0 +0 +0\n", out)
    purged = re.search(r"during.* purged ([1-9]\d*) ", out)
    assert purged, out
    for row in ("time-to-free, released", "time-to-reallocate, purged"):
        assert row in out


def test_without_a_cgroup_ranges_are_discarded_instead() -> None:
    with demo("--limit", "96MiB", "--seconds", "3", "--no-cgroup") as process:
        out, err = process.communicate()
        assert (process.returncode, err) == (0, ""), out
    assert "No memory cgroup (--no-cgroup)" in out
    assert re.search(r"during.* purged ([1-9]\d*) ", out), out
    assert re.search(r"end +finished", out)


@pytest.mark.memory_cgroup
@pytest.mark.usefixtures("needs_cgroup")
@pytest.mark.parametrize(
    ("number", "to"), [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)], ids=["^C", "TERM"]
)
def test_interrupted_it_leaves_nothing_behind(
    number: signal.Signals, to: Callable[[int, int], None]
) -> None:
    with demo() as process:
        wait_for(process, "  fill")
        child = child_of(process)
        assert len(cgroups_of(process)) == 1
        to(process.pid, number)
        assert process.wait(PATIENCE_SECONDS) == 128 + number
        assert is_gone(child)
        assert cgroups_of(process) == []


@pytest.mark.memory_cgroup
@pytest.mark.usefixtures("needs_cgroup")
def test_a_killed_child_is_told_and_leaves_nothing_behind() -> None:
    with demo() as process:
        seen = wait_for(process, "  fill")
        child_of(process).kill()
        out, _ = process.communicate()
        assert process.returncode == 1
        assert "killed by SIGKILL, not because of memory" in seen + out
        assert cgroups_of(process) == []


def test_a_killed_parent_leaves_no_child() -> None:
    with demo("--no-cgroup") as process:
        wait_for(process, "  fill")
        child = child_of(process)
        process.kill()
        assert is_gone(child)


def test_a_child_that_fails_is_told_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VRANGE_RUNG", "ladder")
    with Child(Job("vrange", 128 * MIB, False, MIB, 0.1, 1.0)) as child:
        list(child.messages())
    assert child.ending is not None
    assert child.ending.status == 1
    assert "VRANGE_RUNG=ladder" in child.ending.error


def test_leaving_early_ends_the_child() -> None:
    with Child(Job("dict", 128 * MIB, False, 100 * MIB, 60, 60)) as child:
        next(child.messages())
        process = psutil.Process(child.pid)
    assert is_gone(process)
