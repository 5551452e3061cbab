"""`vrange bench`: figures of this machine."""

from __future__ import annotations

import json

import pytest
from support import RUNG

from vrange.cli import main


def test_bench_compares_each_operation_with_a_peer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--quick"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert RUNG in head
    assert any("hit on a hot value" in row and "lru_cache" in row for row in rows)
    assert any("deep call" in row for row in rows)
    assert all(" × " in row for row in rows)
    assert any("touch it" in row for row in rows) == (RUNG == "refault")


def test_bench_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--quick", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert len(figures) >= 4
    for figure in figures:
        assert figure["seconds"] > 0
        assert figure["peer_seconds"] > 0
        assert figure["ratio"] > 0
