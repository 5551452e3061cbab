"""`vrange run --compare` runs a program both ways and says what differs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from run_support import program, run
from support import MIB

from vrange.cli.run.compare import as_table, compared
from vrange.cli.run.supervise import Sample

CODE = """
import os, sys, time
with open(sys.argv[1], "a") as file:
    print("vrange._autostart" in sys.modules, os.environ.get("LD_PRELOAD"), file=file)
kept = [bytearray(b"x") * (100 << 10) for _ in range(1000)][::8]
time.sleep(0.2)
sys.exit(7)
"""


def test_it_runs_twice_and_prints_a_table(tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run("--compare", "--malloc", program(tmp_path, CODE), log)
    assert (done.returncode, done.stdout) == (7, "")
    assert log.read_text() == "False None\nTrue None\n"
    lines = done.stderr.splitlines()
    assert lines[0] == "| | python | vrange run | times |"
    cells = {line.split("|")[1].strip(): line.split("|")[2:5] for line in lines[2:]}
    assert [one.strip() for one in cells["exit status"]] == ["7", "7", ""]
    assert float(cells["seconds"][2]) > 0
    assert {"peak RSS", "RSS at the end", "not reclaimable, when last read"} <= set(cells)


def test_the_figures_are_those_of_the_runs() -> None:
    def ending(samples: list[Sample]) -> Any:
        sampler = SimpleNamespace(
            samples=samples,
            peak_rss_bytes=max(one.rss_bytes for one in samples),
            average_rss_bytes=50 * MIB,
            peak_cgroup_bytes=None,
        )
        return SimpleNamespace(
            status=0, seconds=2.0, cpu_seconds=1.0, largest_rss_bytes=0, sampler=sampler
        )

    plain = ending([Sample(0.0, 90 * MIB, None, 1, 0), Sample(2.0, 80 * MIB, None, 1)])
    within = ending(
        [
            Sample(1.0, 100 * MIB, None, 1, 70 * MIB),
            Sample(1.9, 60 * MIB, None, 1),
            Sample(2.0, 8 * MIB, None, 1),  # it is just being torn down
        ]
    )
    rows = {row.name: (row.plain, row.within) for row in compared(plain, within)}
    assert rows["peak RSS"] == (90 * MIB, 100 * MIB)
    assert rows["RSS at the end"] == (80 * MIB, 60 * MIB)
    assert rows["not reclaimable, when last read"] == (90 * MIB, 30 * MIB)
    assert rows["peak of the cgroup"] == (None, None)
    table = as_table(compared(plain, within))
    assert "| RSS at the end | 80.0 MiB | 60.0 MiB | 0.75 |" in table
    assert "| peak of the cgroup | unknown | unknown |  |" in table


def test_a_program_that_is_stopped_is_not_run_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = """
import os, signal, sys
open(sys.argv[1], "a").write("x")
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = run("--compare", program(tmp_path, code), log)
    assert done.returncode == -15
    assert log.read_text() == "x"


def test_what_is_no_program_is_refused_as_ever(tmp_path: Path) -> None:
    assert run("--compare", tmp_path / "none.py").returncode == 127
