"""What a watcher does as the level changes: hot values, stacks, the heap, and who is told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client
import pytest
from pressure_support import FakeCgroup, FakeProcess, looks_again, reaches
from support import MIB, wait_until

import vrange
import vrange.heap
import vrange.metrics
from vrange._counters.totals import Totals
from vrange.pressure import LevelChange, Watcher
from vrange.pressure import watcher as watcher_module
from vrange.pressure.levels import read_watcher


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    yield
    if watcher := vrange.pressure.current():
        watcher.close()


@pytest.fixture
def process(tmp_path: Path) -> FakeProcess:
    return FakeProcess(tmp_path, 2)


@pytest.fixture
def job(process: FakeProcess) -> FakeCgroup:
    return process.cgroup("job")


@pytest.fixture
def watch(process: FakeProcess, job: FakeCgroup) -> Callable[..., Watcher]:
    def make(**options: Any) -> Watcher:
        options = {"interval": 0.001, "min_interval": 0, "actions": [], "stalled": 1, **options}
        return vrange.pressure.watch(proc_self=process.proc, **options)

    return make


def count(metric: str, **labels: str) -> float:
    registry = prometheus_client.CollectorRegistry()
    registry.register(vrange.metrics.Collector())
    return registry.get_sample_value(metric, labels) or 0


# ---- what is done --------------------------------------------------------------------------------


def test_hot_values_are_let_go_and_may_come_back(job: FakeCgroup, watch: Any) -> None:
    with (
        vrange.VolatileCache[Any, Any](hot_bytes="8MiB") as cache,
        watch(actions=["hot"]) as watcher,
    ):

        def ask_all() -> int:
            for n in range(8):
                cache.get_or_compute(n, partial(np.full, MIB, n, np.uint8))
                assert (cache[n] == n).all()
            return cache.info().hot_bytes

        full = ask_all()
        assert full > 6 * MIB
        job.use(0.9)
        wait_until(lambda: cache.info().hot_bytes <= 4 * MIB, "no hot value is let go")
        assert 0 < ask_all() <= 4 * MIB
        assert vrange.VolatileCache(hot_bytes="2MiB")._core.hot_limit == MIB, "new ones as well"
        job.use(0.97)
        wait_until(lambda: cache.info().hot_bytes == 0, "hot values are held")
        assert ask_all() == 0
        assert cache.info().pinned_bytes == 0, "let go is volatile"
        job.use(0.5)
        wait_until(lambda: watcher.info().hot_grown >= 1, "the hot front does not grow")
        wait_until(lambda: ask_all() == full, "the hot front is not what it was")
        info = watcher.info()
        assert info.done["hot"] >= 2
        assert info.returned_bytes["hot"] >= full - 4 * MIB


def test_close_lets_hot_fronts_grow(job: FakeCgroup, watch: Any) -> None:
    with vrange.VolatileCache[Any, Any](hot_bytes="8MiB") as cache:
        job.use(0.97)
        with watch(actions=["hot"]) as watcher:
            wait_until(lambda: watcher.info().done["hot"] == 1, "nothing is done")
            assert cache._core.hot_limit == 0
        assert cache._core.hot_limit == 8 * MIB


def test_idle_stacks_are_given_back(job: FakeCgroup, watch: Any) -> None:
    from idle_support import Worker

    leave = threading.Event()
    worker = Worker(lambda _: leave.wait(60))
    try:
        worker.wait_until_blocked()
        before = worker.use().resident_bytes
        assert before >= 8 * MIB
        with watch(actions=["stacks"]) as watcher:
            job.use(0.9)
            wait_until(lambda: watcher.info().done["stacks"] == 1, "nothing is trimmed")
            assert watcher.info().returned_bytes["stacks"] >= 7 * MIB
            assert worker.use().resident_bytes < before - 7 * MIB
    finally:
        leave.set()
        worker.join()


def test_the_heap_is_trimmed_deeply_if_critical(
    job: FakeCgroup, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    trim = vrange.heap.trim

    def noted(deep: bool) -> object:
        asked.append(deep)
        return trim(deep)

    monkeypatch.setattr(vrange.heap, "trim", noted)
    with watch(actions=["heap"]) as watcher:
        job.use(0.9)
        wait_until(lambda: watcher.info().done["heap"] == 1, "nothing is trimmed")
        job.use(0.97)
        wait_until(lambda: watcher.info().done["heap"] == 2, "nothing is trimmed deeply")
        assert asked == [False, True]
        assert watcher.info().failed == {}


def test_an_action_that_fails_is_told_and_the_others_go_on(
    job: FakeCgroup, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(deep: object) -> int:
        raise OSError("no")

    monkeypatch.setattr(vrange.heap, "trim", broken)

    def counted() -> float:
        return count("vrange_pressure_actions_total", action="trim_heap", outcome="failed")

    failures = counted()
    with watch(actions=["heap", "stacks"]) as watcher:
        for turn in (1, 2):
            job.use(0.9)
            wait_until(lambda turn=turn: watcher.info().done["stacks"] == turn, "no trim")
            # After one that took long and returned little, the next one waits.
            wait_until(lambda turn=turn: counted() >= failures + turn, "not counted")
            assert watcher.info().failed == {"heap": "OSError: no"}
            job.use(0.5)
            reaches(watcher, "normal")


def test_each_at_most_so_often_and_what_is_put_off_is_not_lost(job: FakeCgroup, watch: Any) -> None:
    with watch(actions=["stacks"], min_interval=2) as watcher:
        job.use(0.9)
        wait_until(lambda: watcher.info().done["stacks"] == 1, "nothing is done")
        job.use(0.97)
        wait_until(lambda: watcher.info().skipped["stacks"] == 1, "it is not put off")
        assert watcher.info().done["stacks"] == 1
        wait_until(lambda: watcher.info().done["stacks"] == 2, "it is lost")


@pytest.mark.parametrize(("returned", "rests"), [(0, True), (1 << 40, False)])
def test_an_action_that_returns_little_is_rarely_repeated_at_its_level(
    job: FakeCgroup, watch: Any, monkeypatch: pytest.MonkeyPatch, returned: int, rests: bool
) -> None:
    """A full collection each second is what slowed a Dask worker down that was near its limit."""
    asked: list[bool] = []

    def slow(deep: bool) -> int:
        asked.append(deep)
        time.sleep(0.2)
        return returned

    monkeypatch.setattr(vrange.heap, "trim", slow)
    with watch(actions=["heap"]) as watcher:
        for _ in range(3):
            job.use(0.97)
            wait_until(lambda: watcher._acted_on == "critical", "the level is not seen")
            job.use(0.88)
            wait_until(lambda: watcher._acted_on == "elevated", "the level is not seen")
    assert asked.count(True) == (1 if rests else 3)


def test_a_rest_at_one_level_delays_nothing_at_the_next(
    job: FakeCgroup, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def slow(deep: bool) -> int:
        asked.append(deep)
        time.sleep(0.2)
        return 0

    monkeypatch.setattr(vrange.heap, "trim", slow)
    with watch(actions=["heap"]):
        job.use(0.9)
        wait_until(lambda: asked == [False], "nothing is trimmed")
        job.use(0.97)
        wait_until(lambda: asked == [False, True], "it waits for the light trim's rest")


def test_put_off_until_the_level_is_normal_again_is_not_done(job: FakeCgroup, watch: Any) -> None:
    with watch(actions=["stacks"], min_interval=3600) as watcher:
        job.use(0.9)
        wait_until(lambda: watcher.info().done["stacks"] == 1, "nothing is done")
        for _ in range(3):
            before = watcher.info().skipped["stacks"]
            job.use(0.5)
            # A normal that is over before anybody acts on it ends nothing that was put off.
            wait_until(lambda: watcher._acted_on == "normal", "the level is not seen")
            job.use(0.9)
            reaches(watcher, "elevated")
            # A loaded machine sees usage grow in two steps, and then it is put off twice.
            wait_until(lambda was=before: watcher.info().skipped["stacks"] > was, "not put off")
        assert watcher.info().done["stacks"] == 1


def test_usage_that_goes_on_to_grow_is_acted_on_again(job: FakeCgroup, watch: Any) -> None:
    told: list[str] = []
    with watch(actions=["stacks"], on_level=lambda change: told.append(change.level)) as watcher:
        job.use(0.86)
        wait_until(lambda: watcher.info().done["stacks"] == 1, "nothing is done")
        looks_again(watcher, 10)
        assert watcher.info().done["stacks"] == 1, "nothing has changed"
        job.use(0.90)
        wait_until(lambda: watcher.info().done["stacks"] == 2, "growth is not seen")
        assert watcher.info().growths == 1
        assert told == ["elevated"]


def test_no_python_runs_while_the_level_stays(
    job: FakeCgroup, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    real = read_watcher

    def read() -> Any:
        name = Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text().strip()
        if name == "vrange-pressure":
            waits.append(1)
        return real()

    monkeypatch.setattr(watcher_module, "read_watcher", read)
    with watch(on_level=lambda change: None) as watcher:
        for share in (0.5, 0.9):
            job.use(share)
            looks_again(watcher, 20)
            before = len(waits)
            job.use(share + 0.01)
            looks_again(watcher, 100)
            assert len(waits) == before
        assert before > 0


# ---- who is told ---------------------------------------------------------------------------------


def test_a_callback_is_told_up_and_down_on_a_thread_of_its_own(job: FakeCgroup, watch: Any) -> None:
    told: list[tuple[LevelChange, threading.Thread]] = []
    on_level = lambda change: told.append((change, threading.current_thread()))  # noqa: E731
    with watch(on_level=on_level):
        for n, share in enumerate((0.9, 0.97, 0.5)):
            job.use(share)
            wait_until(lambda n=n: len(told) == n + 1, "it is not told")
    assert [(change.before, change.level) for change, _ in told] == [
        ("normal", "elevated"),
        ("elevated", "critical"),
        ("critical", "normal"),
    ]
    assert told[1][0].used_bytes / told[1][0].limit_bytes == pytest.approx(0.97, abs=0.02)
    assert told[0][0].source == str(job.directory)
    assert {thread.name[:15] for _, thread in told} == {"vrange-pressure"}
    assert all(thread.daemon for _, thread in told)


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_one_that_raises_is_reported_and_goes_on(
    job: FakeCgroup, watch: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    reported: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_value))

    def on_level(change: LevelChange) -> None:
        raise error

    with watch(on_level=on_level) as watcher:
        for n, share in enumerate((0.9, 0.5, 0.9)):
            job.use(share)
            wait_until(lambda n=n: len(reported) == n + 1, "it is not reported")
        wait_until(lambda: watcher.info().callbacks[0].failures == 3, "it is not counted")
        assert watcher.info().callbacks[0].calls == 3
    assert reported == [error] * 3


def test_a_hook_that_is_broken_ends_nothing(
    job: FakeCgroup, watch: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda: None)
    with watch(on_level=lambda change: 1 / 0) as watcher:
        for n, share in enumerate((0.9, 0.5)):
            job.use(share)
            wait_until(lambda n=n: watcher.info().callbacks[0].failures == n + 1, "it is over")
    assert capsys.readouterr().err.count("ZeroDivisionError") == 2


def test_one_that_blocks_delays_nobody_and_hears_the_level_of_then(
    job: FakeCgroup, watch: Any
) -> None:
    leave, heard, others = threading.Event(), [], []

    def slow(change: LevelChange) -> None:
        heard.append((change.before, change.level))
        assert leave.wait(30)

    with watch(
        on_level=[slow, lambda change: others.append(change.level)], actions=["stacks"]
    ) as w:
        job.use(0.9)
        wait_until(lambda: heard and w.info().callbacks[0].running, "it is not called")
        done = w.info().done["stacks"]
        for n, share in enumerate((0.97, 0.5, 0.9, 0.97)):
            job.use(share)
            wait_until(lambda n=n: len(others) == n + 2, "the other one waits")
        # One that returned little rests, so rises in quick succession may share one.
        wait_until(lambda: w.info().done["stacks"] > done, "actions wait")
        assert heard == [("normal", "elevated")]
        assert w.info().callbacks[0].skipped == 3  # back at elevated it knew the level
        leave.set()
        wait_until(lambda: len(heard) == 2, "the level of now is not told")
        assert heard[1] == ("elevated", "critical")
        wait_until(lambda: not w.info().callbacks[0].running, "it still runs")
        assert w.info().callbacks[0].calls == 2


def test_callbacks_at_most_so_often(job: FakeCgroup, watch: Any) -> None:
    told: list[str] = []
    with watch(on_level=lambda change: told.append(change.level), min_interval=0.2) as watcher:
        job.use(0.9)
        wait_until(lambda: told == ["elevated"], "it is not told")
        job.use(0.97)
        wait_until(lambda: watcher.info().callbacks[0].skipped == 1, "it is not put off")
        assert told == ["elevated"]
        wait_until(lambda: told == ["elevated", "critical"], "it is lost")


def test_a_callback_may_close_the_watcher(job: FakeCgroup, watch: Any) -> None:
    closed = threading.Event()

    def on_level(change: LevelChange) -> None:
        watcher.close()
        closed.set()

    watcher = watch(on_level=on_level)
    job.use(0.9)
    assert closed.wait(20)
    assert vrange.pressure.current() is None


def test_on_an_event_loop(job: FakeCgroup, watch: Any) -> None:
    told: list[tuple[str, str, object]] = []
    errors: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: errors.append(context))
        changed = asyncio.Event()

        async def coroutine(change: LevelChange) -> None:
            await asyncio.sleep(0)
            told.append(("coroutine", change.level, asyncio.get_running_loop()))
            changed.set()

        def plain(change: LevelChange) -> None:
            told.append(("plain", change.level, asyncio.get_running_loop()))

        async def broken(change: LevelChange) -> None:
            raise ValueError("mine")

        with watch(on_level=[plain, coroutine, broken], loop=loop) as watcher:
            for n, share in enumerate((0.9, 0.5)):
                job.use(share)
                await asyncio.wait_for(changed.wait(), 20)
                changed.clear()
                while any(c.running or c.calls != n + 1 for c in watcher.info().callbacks):
                    await asyncio.sleep(0.001)
            assert [callback.calls for callback in watcher.info().callbacks] == [2, 2, 2]
            assert [callback.failures for callback in watcher.info().callbacks] == [0, 0, 2]
        assert {running for *_, running in told} == {loop}

    asyncio.run(main())
    assert sorted(entry[:2] for entry in told) == [
        ("coroutine", "elevated"),
        ("coroutine", "normal"),
        ("plain", "elevated"),
        ("plain", "normal"),
    ]
    assert [str(context["exception"]) for context in errors] == ["mine", "mine"]
    assert "broken" in errors[0]["message"]


def test_a_coroutine_that_waits_is_not_called_again(job: FakeCgroup, watch: Any) -> None:
    async def main() -> None:
        calls, leave = [], asyncio.Event()

        async def slow(change: LevelChange) -> None:
            calls.append(change.level)
            await leave.wait()

        with watch(on_level=slow, loop=asyncio.get_running_loop()) as watcher:
            job.use(0.9)
            while not calls:
                await asyncio.sleep(0.001)
            job.use(0.97)
            while not watcher.info().callbacks[0].skipped:
                await asyncio.sleep(0.001)
            assert calls == ["elevated"]
            leave.set()
            while len(calls) < 2:
                await asyncio.sleep(0.001)
            assert calls == ["elevated", "critical"]

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_loop_that_is_closed_ends_nothing(job: FakeCgroup, watch: Any) -> None:
    loop = asyncio.new_event_loop()
    with watch(on_level=print, loop=loop, actions=["stacks"]) as watcher:
        loop.close()
        job.use(0.9)
        wait_until(lambda: watcher.info().done["stacks"] == 1, "the watcher is gone")
        wait_until(lambda: watcher.info().callbacks[0].skipped == 1, "it is not counted")
        assert watcher.info().callbacks[0].calls == 0
    with pytest.raises(ValueError, match="loop is closed"):
        watch(on_level=print, loop=loop)


# ---- what is counted -----------------------------------------------------------------------------


def test_metrics_and_the_sums_of_a_service(job: FakeCgroup, watch: Any) -> None:
    done = {"action": "trim_stacks", "outcome": "done"}
    before = count("vrange_pressure_actions_total", **done)
    entered = count("vrange_pressure_changes_total", level="critical")
    with watch(actions=["stacks", "hot"], on_level=lambda change: None) as watcher:
        assert count("vrange_pressure_level") == 0
        job.use(0.97)
        reaches(watcher, "critical")
        wait_until(lambda: watcher.info().done["stacks"] == 1, "nothing is done")
        assert count("vrange_pressure_level") == 2
        assert count("vrange_pressure_actions_total", **done) == before + 1
        assert count("vrange_pressure_changes_total", level="critical") == entered + 1
        totals = vrange.metrics._own_totals()
        again = Totals.from_json(totals.as_json())
        assert again.pressure.actions == totals.pressure.actions
        assert (again.pressure.level, totals.pressure.level) == ("", "critical")
        totals.merge_counts(again)
        assert totals.pressure.actions["trim_stacks", "done"] == 2 * (before + 1)
        assert totals.pressure.level == "critical"
        older = Totals.from_json({k: v for k, v in again.as_json().items() if k != "pressure"})
        assert older.pressure.actions == {}
    registry = prometheus_client.CollectorRegistry()
    registry.register(vrange.metrics.Collector())
    assert registry.get_sample_value("vrange_pressure_level") is None, "nobody watches"
    assert count("vrange_pressure_actions_total", **done) == before + 1
