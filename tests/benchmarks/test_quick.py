"""Each benchmark runs, checks what it measured, and leaves its results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vrange._ranges.capabilities import capabilities
from vrange.cli.memory_cgroup import MemoryCgroup

for peer in ("cachetools", "cachebox", "diskcache", "joblib"):
    pytest.importorskip(peer, reason="the benchmarks' peers are not installed (group peers)")
pytest.importorskip("matplotlib", reason="the benchmarks' plots need matplotlib")

pytestmark = pytest.mark.timeout(300)  # on a busy machine

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, results: Path, timeout: float = 280) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--results", str(results)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found: dict[str, Any] = json.loads((results / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize(
    "name",
    [
        "release",
        "bookkeeping",
        "heap_trim",
        "numpy_temporaries",
        "small_blocks",
        "idle",
        "scale",
        "recency",
    ],
)
def test_runs_and_meets_what_holds_at_any_size(name: str, tmp_path: Path) -> None:
    assert all(target["met"] for target in run(name, tmp_path)["targets"])


def test_the_start_is_measured_with_vrange_and_without(tmp_path: Path) -> None:
    found = run("start_up", tmp_path)["contenders"]
    threads = {name: figures["threads"] for name, figures in found.items()}
    assert threads["python"] == threads["python again"] < threads["vrange run"]
    assert threads["vrange's malloc"] <= threads["python"] + 1


def test_each_kind_of_small_value_has_its_hits_timed(tmp_path: Path) -> None:
    document = run("decorated_hit", tmp_path)
    assert all(target["met"] for target in document["targets"])
    found = document["small_volatile_us"]
    assert set(found) == {"str", "bytes", "int", "tuple", "ndarray"}
    assert all(times[way] > 0 for times in found.values() for way in ("@cached", "cache[key]"))


@pytest.mark.memory_cgroup
def test_refaults_are_counted_and_content_is_right(tmp_path: Path) -> None:
    if capabilities().rung != "refault":
        pytest.skip(reason="nothing refaults on this rung")
    found = run("refault", tmp_path)
    assert found["beside np.memmap"]["scan"]["vrange, file"]["refaults"] > 0
    assert (tmp_path / "refault.png").stat().st_size > 10_000


@pytest.mark.memory_cgroup
def test_pressure_kills_the_dict_and_nobody_else(tmp_path: Path) -> None:
    if refusal := MemoryCgroup.unavailable():
        pytest.skip(reason=f"no memory cgroup can be made: {refusal}")
    found = run("cache_under_pressure", tmp_path)
    assert all(target["met"] for target in found["targets"])
    assert not found["peers"]["dict"][0]["survived"]
    assert (tmp_path / "cache_under_pressure.png").stat().st_size > 10_000


def test_the_workers_shared_cache_saves_more_the_more_workers_there_are(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    rows = run("dask.growth", tmp_path)["rows"]
    saved = [row["computed"] / row["computed alone"] for row in rows]
    assert [row["workers"] for row in rows] == [2, 10, 100]
    assert saved == sorted(saved, reverse=True)
    assert saved[-1] < 0.25
    assert all(row["messages each"] < 2 for row in rows)


def test_a_kill_is_told_from_a_fault() -> None:
    from benchmarks import contender

    with pytest.raises(RuntimeError, match="KeyError"):
        contender.run("benchmarks.pressure_workload", {})


@pytest.mark.memory_cgroup
def test_the_watcher_sees_the_levels_it_is_measured_at(tmp_path: Path) -> None:
    if refusal := MemoryCgroup.unavailable():
        pytest.skip(reason=f"no memory cgroup can be made: {refusal}")
    found = run("pressure_watch", tmp_path)
    assert all(target["met"] for target in found["targets"])
    assert found["far"]["vrange"]["share_of_a_core"] > 0
    assert found["crossing"]["vrange"]["crossings"] >= 2
    assert (tmp_path / "pressure_watch.png").stat().st_size > 10_000


@pytest.mark.memory_cgroup
def test_the_data_job_is_measured_in_all_its_ways(tmp_path: Path) -> None:
    if refusal := MemoryCgroup.unavailable():
        pytest.skip(reason=f"no memory cgroup can be made: {refusal}")
    ways = run("data_job", tmp_path)["ways"]
    assert list(ways) == ["python", "vrange run", "vrange run --heap=libc"]
    for way in ways.values():
        assert way["peak"] >= way["average"] > 0
        assert way["peak"] >= way["final"] > 0
    assert (tmp_path / "data_job.png").stat().st_size > 10_000


@pytest.mark.memory_cgroup
def test_a_second_process_has_what_a_program_gave_up(tmp_path: Path) -> None:
    if refusal := MemoryCgroup.unavailable():
        pytest.skip(reason=f"no memory cgroup can be made: {refusal}")
    document = run("complaints", tmp_path)
    assert all(target["met"] for target in document["targets"])
    for one in document["programs"]["list_of_dicts"].values():
        assert one["peak"] > one["kept"] > 0


def test_each_lower_tier_is_measured_beside_the_library_alone(tmp_path: Path) -> None:
    document = run("lower_tier", tmp_path)
    assert len(document["targets"]) == 8
    assert all(took > 0 for times in document["us"].values() for took in times.values())


@pytest.mark.memory_cgroup
@pytest.mark.timeout(900)  # some sixty processes
def test_the_table_of_peers_tries_each_property_on_each(tmp_path: Path) -> None:
    if refusal := MemoryCgroup.unavailable():
        pytest.skip(reason=f"no memory cgroup can be made: {refusal}")
    from benchmarks import peers_table
    from benchmarks.peers_table_caches import CACHES

    document = run("peers_table", tmp_path, timeout=880)
    assert all(target["met"] for target in document["targets"])
    found = document["found"]
    for _, name, _ in peers_table.ROWS:
        assert set(found[name]) >= set(CACHES) - {"functools.lru_cache"}, name
    assert not found["growth"]["functools.lru_cache"]["default"]["survived"]
    assert found["shared"]["diskcache"]["default"]["by_second_process"]


def test_the_table_in_the_docs_is_the_one_measured() -> None:
    from benchmarks import peers_table, report

    document = json.loads((report.RESULTS / "peers_table.json").read_text())
    assert peers_table.markdown(document["found"]) in (ROOT / "docs/caches.md").read_text()
