"""The survival benchmark: all contenders get the same, and a kill is told from a survival."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.contender import Outcome
from benchmarks.survival import cgroup, matrix, runner, tables
from benchmarks.survival.kernel_log import KernelLog
from benchmarks.survival.matrix import Case
from benchmarks.survival.record import Record

from vrange._ranges.capabilities import capabilities
from vrange.cli.memory_cgroup import MemoryCgroup

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


def line(kind: str, number: int = 0, **more: int) -> dict[str, object]:
    return {"kind": kind, "number": number, **more}


def test_a_case_is_the_same_each_time_and_differs_from_others() -> None:
    case = Case(128, "ramp", 7)
    assert case.task() == Case(128, "ramp", 7).task()
    others = [Case(128, "ramp", 8), Case(256, "ramp", 7), Case(128, "tmpfs", 7)]
    assert all(case.drawn()["shares"] != other.drawn()["shares"] for other in others)


def test_the_whole_matrix_has_more_than_ten_thousand_bursts_of_vrange() -> None:
    every = list(matrix.whole(1, matrix.LIMITS_MIB, tuple(matrix.SHAPES), matrix.CONTENDERS))
    ours = [case for case, contender in every if contender in matrix.RUNGS]
    assert len(ours) * matrix.BURSTS > 10_000
    assert len(set(every)) == len(every)
    assert {contender for _, contender in every} == set(matrix.CONTENDERS)


def test_a_larger_sample_begins_with_the_smaller_one() -> None:
    shapes = tuple(matrix.SHAPES)
    small, large = (
        list(matrix.sample(size, 3, matrix.LIMITS_MIB, shapes, ("refault",))) for size in (60, 90)
    )
    assert large[:60] == small
    assert {case.shape for case, _ in small} == set(shapes)


def test_what_is_pinned_or_of_the_process_is_not_possible() -> None:
    fits = cgroup.possible(limit=100 * MIB, usage=90 * MIB, idle=50 * MIB, takeable=10 * MIB)
    assert 68 * MIB < fits < 70 * MIB
    assert cgroup.possible(limit=100 * MIB, usage=101 * MIB, idle=0, takeable=0) == 0


@pytest.mark.parametrize(
    ("lines", "status", "kills", "expected"),
    [
        ([line("burst"), line("survived", wrong=0)], 0, 0, [True]),
        ([line("burst")], -9, 1, [False]),
        ([line("burst"), line("survived", wrong=0), line("burst", 1)], -9, 1, [True, False]),
        ([line("burst"), line("survived", wrong=0)], -9, 1, [True, False]),  # between two
        ([], -9, 1, [False]),  # while the cache was filled
        ([line("burst"), line("survived", wrong=0)], 0, 1, [True, False]),  # another process
        ([line("burst")], -9, 0, [False]),  # it hung
    ],
)
def test_the_burst_under_way_is_the_one_that_was_not_survived(
    lines: list[dict[str, object]], status: int, kills: int, expected: list[bool]
) -> None:
    found = runner.judged(Outcome(lines, status, kills, 0))
    assert [burst["survived"] for burst in found["bursts"]] == expected


def test_runs_are_kept_and_a_line_that_was_cut_is_dropped(tmp_path: Path) -> None:
    case = Case(64, "ramp", 1)
    run = {"bursts": [{"survived": True}], "exit_status": 0}
    record = Record(tmp_path / "runs.jsonl")
    record.add(case, "refault", run)
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write('{"case": "64 M')
    again = Record(tmp_path / "runs.jsonl")
    assert again.has(case, "refault")
    assert not again.has(case, "eager")
    again.add(case, "eager", run)
    assert tables.counted(Record(tmp_path / "runs.jsonl").runs) == (2, 0)


def test_the_tables_replace_what_was_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    run = {"bursts": [{"survived": False}], "contender": "refault", "shape": "ramp"}
    tables.write_into(page, [run | {"limit_mib": 64}])
    text = page.read_text()
    assert "| ramp | 1 of 1 |" in text
    assert "| 64 MiB | 1 of 1 |" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")


@pytest.mark.memory_cgroup
def test_a_program_that_takes_too_much_is_killed_and_the_kernel_is_quoted() -> None:
    if refusal := MemoryCgroup.unavailable():
        pytest.skip(reason=f"no memory cgroup can be made: {refusal}")
    found = runner.run(Case(64, "one step", 1), matrix.DICT, None)
    assert found["oom_kills"] > 0
    assert tables.counted([found]) == (1, 1)
    if KernelLog().is_readable:
        assert any("Killed process" in text for text in found["kernel"])


@pytest.mark.memory_cgroup
@pytest.mark.timeout(300)
def test_a_sample_runs_and_the_dict_is_killed(tmp_path: Path) -> None:
    if refusal := MemoryCgroup.unavailable():
        pytest.skip(reason=f"no memory cgroup can be made: {refusal}")
    command = [sys.executable, "-m", "benchmarks.survival", "--quick", "--results", str(tmp_path)]
    for _ in range(2):  # the second time it only shows what is there
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "survived" not in done.stdout
    document = json.loads((tmp_path / "survival.json").read_text())
    assert all(target["met"] for target in document["targets"])
    shapes = document["tables"][0]
    assert shapes[-1][capabilities().rung] == "0 of 3"
    assert shapes[-1]["dict"] == "1 of 1"
