"""The table of what works how deep is the one that its command prints."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import how_deep

PAGE = Path(__file__).resolve().parents[2] / "docs" / "stacks.md"


def test_the_page_has_the_table_that_was_measured() -> None:
    assert how_deep.table(json.loads(how_deep.RESULTS.read_text())) in PAGE.read_text()
