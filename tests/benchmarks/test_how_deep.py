"""The tables of what works how deep are those that their commands print."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import deep_levels, how_deep, report

PAGE = Path(__file__).resolve().parents[2] / "docs" / "stacks.md"


def test_the_page_has_the_table_that_was_measured() -> None:
    assert how_deep.table(json.loads(how_deep.RESULTS.read_text())) in PAGE.read_text()


def test_the_page_has_the_million_levels_that_were_measured() -> None:
    measured = json.loads((report.RESULTS / "deep_levels.json").read_text())
    assert deep_levels.table(measured["ways"]) in PAGE.read_text()
