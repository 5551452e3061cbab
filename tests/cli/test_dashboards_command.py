"""`vrange dashboards`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vrange.cli import main


def test_it_writes_dashboards_and_rules(tmp_path: Path) -> None:
    assert main(["dashboards", "--write", str(tmp_path / "new" / "place")]) == 0
    written = {path.name: path.read_text() for path in (tmp_path / "new" / "place").iterdir()}
    assert "groups:" in written.pop("rules.yml")
    assert {json.loads(text)["uid"] for text in written.values()} >= {"vrange-overview"}


def test_it_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboards"]) == 0
    assert {"overview.json", "rules.yml"} <= set(capsys.readouterr().out.split())


def test_a_file_that_the_user_has_edited_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write = ["dashboards", "--write", str(tmp_path)]
    assert main(write) == 0
    assert main(write) == 0, "the same files again are no reason to stop"
    edited = tmp_path / "rules.yml"
    edited.write_text("mine\n")
    (tmp_path / "overview.json").unlink()
    assert main(write) == 2
    assert "rules.yml" in capsys.readouterr().err
    assert edited.read_text() == "mine\n"
    assert not (tmp_path / "overview.json").exists(), "all or none"
    assert main([*write, "--force"]) == 0
    assert edited.read_text() != "mine\n"
