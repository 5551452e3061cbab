"""What level a watcher tells, from cgroups that are plain files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pressure_support import LIMIT, FakeProcess, looks_again, put, reaches, stays
from support import succeeds, wait_until

import vrange
from vrange.pressure import Watcher
from vrange.sizes import format_bytes


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    yield
    if watcher := vrange.pressure.current():
        watcher.close()


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> FakeProcess:
    return FakeProcess(tmp_path, request.param)


def watch(process: FakeProcess, **options: Any) -> Watcher:
    return vrange.pressure.watch(
        **{"proc_self": process.proc, "interval": 0.001, "actions": [], "stalled": 1, **options}
    )


def test_levels_and_their_hysteresis(process: FakeProcess) -> None:
    job = process.cgroup("job")
    with watch(process) as watcher:
        assert watcher.level == "normal"
        for share, level in (
            (0.84, "normal"),
            (0.86, "elevated"),
            (0.81, "elevated"),
            (0.79, "normal"),
            (0.84, "normal"),
            (0.96, "critical"),
            (0.91, "critical"),
            (0.89, "elevated"),
            (0.94, "elevated"),
            (1.0, "critical"),
            (0.5, "normal"),
        ):
            job.use(share)
            reaches(watcher, level)
            stays(watcher, level)
        info = watcher.info()
        assert info.changes == 6
        assert info.limit_bytes == LIMIT
        assert info.usage_bytes == info.used_bytes == LIMIT // 2
        assert info.source == str(job.directory)
        assert f"of {format_bytes(LIMIT)} in use in {job.directory}" in repr(watcher)
        assert "normal" in repr(watcher)


def test_thresholds_are_settable(process: FakeProcess) -> None:
    job = process.cgroup("job")
    with watch(process, elevated=0.3, critical=0.6, hysteresis=0) as watcher:
        for share, level in ((0.31, "elevated"), (0.61, "critical"), (0.58, "elevated")):
            job.use(share)
            reaches(watcher, level)
        job.use(0.29)
        reaches(watcher, "normal")


def test_a_level_that_is_up_already_is_told_at_once(process: FakeProcess) -> None:
    process.cgroup("job").use(0.9)
    told: list[str] = []
    with watch(process, on_level=lambda change: told.append(change.level)) as watcher:
        assert watcher.level == "elevated"
        wait_until(lambda: told == ["elevated"], "the callback is not told")


def test_the_nearest_limit_of_all_around_counts(process: FakeProcess) -> None:
    process.move("/outer/inner")
    inner = process.cgroup("outer/inner", 2 * LIMIT)
    outer = process.cgroup("outer")
    inner.use(0.5)
    with watch(process) as watcher:
        outer.use(0.9)
        reaches(watcher, "elevated")
        assert watcher.info().source == str(outer.directory)
        outer.use(0.2)
        reaches(watcher, "normal")
        inner.use(0.97, of=2 * LIMIT)
        reaches(watcher, "critical")
        assert watcher.info().source == str(inner.directory)
        assert watcher.info().watched == (str(inner.directory), str(outer.directory))


def test_a_limit_that_changes_while_it_runs(process: FakeProcess) -> None:
    job = process.cgroup("job", None)
    job.use(0.5)
    with watch(process) as watcher:
        assert watcher.info().source == "machine"
        job.set_limit(LIMIT)
        wait_until(lambda: watcher.info().source == str(job.directory), "no limit is seen")
        stays(watcher, "normal")
        job.set_limit(int(LIMIT * 0.51))
        reaches(watcher, "critical")
        job.set_limit(LIMIT)
        reaches(watcher, "normal")
        job.set_limit(None)
        wait_until(lambda: watcher.info().source == "machine", "the limit is still there")
    assert watcher.info().read_errors == 0


def test_memory_high_is_a_limit(tmp_path: Path) -> None:
    process = FakeProcess(tmp_path, 2)
    job = process.cgroup("job")
    job.use(0.45)
    with watch(process) as watcher:
        stays(watcher, "normal")
        put(job.directory / "memory.high", LIMIT // 2)
        reaches(watcher, "elevated")


def test_a_limit_above_all_that_is_in_sight(tmp_path: Path) -> None:
    process = FakeProcess(tmp_path, 1)
    job = process.cgroup("job", None)
    with watch(process) as watcher:
        job.use(0.9)
        stat = f"hierarchical_memory_limit {LIMIT}\ntotal_inactive_file 0\n"
        put(job.directory / "memory.stat", stat)
        reaches(watcher, "elevated")
        assert watcher.info().limit_bytes == LIMIT


def test_what_the_kernel_takes_at_once_is_not_in_the_way(process: FakeProcess) -> None:
    job = process.cgroup("job")
    with watch(process) as watcher:
        job.use(0.99, inactive=0.5)
        stays(watcher, "normal")
        assert watcher.info().usage_bytes == int(LIMIT * 0.99)
        assert watcher.info().used_bytes < LIMIT * 0.5
        job.use(0.99, inactive=0.1)
        reaches(watcher, "elevated")


def test_idle_bytes_are_not_in_the_way(process: FakeProcess) -> None:
    job = process.cgroup("job")
    kept = vrange.stats().reserve
    before = kept.idle_bytes
    vrange.set_reserve(0, tick=0.001)  # nothing is offered: all that is volatile stays idle
    try:
        with watch(process) as watcher, vrange.VolatileCache[int, bytes](hot_bytes=0) as cache:
            for n in range(8):
                cache[n] = bytes(8 << 20)
            idle = vrange.stats().reserve.idle_bytes
            assert idle - before >= 60 << 20
            job.use(0.89)
            reaches(watcher, "elevated")
            info = watcher.info()
            assert info.usage_bytes - info.used_bytes >= 60 << 20
    finally:
        vrange.set_reserve("8GiB", tick=0.001)


def test_stalls_make_elevated_critical(tmp_path: Path) -> None:
    process = FakeProcess(tmp_path, 2)
    job = process.cgroup("job")
    job.stall(1000)
    with watch(process, stalled=0.1, interval=0.01) as watcher:
        job.use(0.5)
        job.stall(9_000_000)
        stays(watcher, "normal")  # stalls alone are somebody else's
        job.use(0.87)
        reaches(watcher, "elevated")
        stalled = 9_000_000

        def stall() -> bool:
            nonlocal stalled
            stalled += 5_000
            job.stall(stalled)
            return watcher.level == "critical"

        wait_until(stall, "stalls don't count")
        assert watcher.info().stalled >= 0.1
        reaches(watcher, "elevated")  # no stalls any more


def test_a_process_that_is_moved_is_followed(process: FakeProcess) -> None:
    first, second = process.cgroup("job"), process.cgroup("other")
    second.use(0.9)
    with watch(process) as watcher:
        assert watcher.info().source == str(first.directory)
        process.move("/other")
        reaches(watcher, "elevated")
        assert watcher.info().watched == (str(second.directory),)


def test_no_cgroup_at_all_is_the_machine(tmp_path: Path) -> None:
    with vrange.pressure.watch(proc_self=tmp_path / "none", actions=[]) as watcher:
        info = watcher.info()
    assert info.source == "machine"
    assert info.watched == ("machine",)
    assert 0 < info.used_bytes < info.limit_bytes
    assert info.limit_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_what_can_not_be_read_is_told_and_left_out(process: FakeProcess) -> None:
    process.move("/outer/inner")
    inner, outer = process.cgroup("outer/inner"), process.cgroup("outer")
    usage = "memory.usage_in_bytes" if process.version == 1 else "memory.current"
    (inner.directory / usage).unlink()
    (inner.directory / usage).mkdir()  # who may read all can't read that
    with pytest.warns(RuntimeWarning, match="is not watched.*Is a directory"):
        watcher = watch(process)
    with watcher:
        assert list(watcher.info().refused) == [str(inner.directory)]
        outer.use(0.9)
        reaches(watcher, "elevated")


def test_an_unprivileged_user_who_may_not_read(process: FakeProcess) -> None:
    job = process.cgroup("job")
    usage = "memory.usage_in_bytes" if process.version == 1 else "memory.current"
    (job.directory / usage).chmod(0)
    if os.geteuid() == 0:
        for directory in [job.directory, *job.directory.parents]:
            directory.chmod(directory.stat().st_mode | 0o055)
    code = """
    import os, sys, warnings, vrange.pressure, vrange.heap
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 65534)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        watcher = vrange.pressure.watch(proc_self=sys.argv[1])
    assert ["is not watched" in str(w.message) for w in told if "watched" in str(w.message)]
    info = watcher.info()
    assert "Permission denied" in info.refused[sys.argv[2]], info
    print(info.source, watcher.level is not None)
    """
    assert succeeds(code, process.proc, job.directory) == "machine True\n"


def test_a_file_that_fails_leaves_the_level(process: FakeProcess) -> None:
    job = process.cgroup("job")
    job.use(0.9)
    with watch(process) as watcher:
        assert watcher.level == "elevated"
        usage = "memory.usage_in_bytes" if process.version == 1 else "memory.current"
        put(job.directory / usage, "nonsense")
        looks_again(watcher)
        assert watcher.info().read_errors > 0


def test_one_a_process(process: FakeProcess) -> None:
    process.cgroup("job")
    with watch(process) as watcher:
        assert vrange.pressure.current() is watcher
        with pytest.raises(vrange.VrangeError, match="runs in this process already"):
            watch(process)
        assert watcher.level == "normal"
    assert vrange.pressure.current() is None
    assert watcher.level is None
    assert not watcher.info().running
    assert repr(watcher) == "<vrange.pressure.Watcher, closed>"
    watcher.close()
    with watch(process):
        watcher.close()  # of the other one, and it is closed
        assert vrange.pressure.current().level == "normal"


async def _coroutine(change: object) -> None: ...


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"elevated": 0}, ValueError, "elevated must be more than 0"),
        ({"elevated": "85%"}, ValueError, "elevated must be"),
        ({"critical": 1.5}, ValueError, "critical must be"),
        ({"critical": float("nan")}, ValueError, "critical must be"),
        ({"elevated": 0.9, "critical": 0.9}, ValueError, "must be less than critical"),
        ({"hysteresis": -0.1}, ValueError, "hysteresis must be"),
        ({"hysteresis": 0.85}, ValueError, "hysteresis must be"),
        ({"stalled": 0}, ValueError, "stalled must be"),
        ({"interval": 0}, ValueError, "interval must be"),
        ({"interval": True}, ValueError, "interval must be"),
        ({"min_interval": -1}, ValueError, "min_interval must be"),
        ({"actions": ["hot", "all"]}, ValueError, "not 'all'"),
        ({"on_level": "print"}, TypeError, "must be callable"),
        ({"on_level": 5}, TypeError, "must be callable"),
        ({"on_level": _coroutine}, TypeError, "pass the loop="),
        ({"loop": "loop"}, TypeError, "must be an event loop"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with warnings.catch_warnings(), pytest.raises(error, match=match):
        vrange.pressure.watch(**options)
    assert vrange.pressure.current() is None
