"""The dashboards and rules, on paper: test_prometheus.py asks a server for their expressions."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed")

from dashboards.grafana import files
from dashboards.panels import DASHBOARDS, Dashboard

HERE = Path(__file__).resolve().parents[2] / "dashboards"


def test_the_committed_files_are_what_the_code_writes() -> None:
    stale = [name for name, text in files().items() if (HERE / name).read_text() != text]
    assert not stale, "run python -m dashboards"
    assert {path.name for path in HERE.glob("*.json")} == set(files())


@pytest.mark.parametrize("shown", DASHBOARDS, ids=lambda shown: shown.uid)
def test_a_dashboard_has_its_panels_side_by_side_and_its_variables(shown: Dashboard) -> None:
    data = json.loads((HERE / f"{shown.uid.removeprefix('vrange-')}.json").read_text())
    assert [panel["title"] for panel in data["panels"]] == [one.title for one in shown.panels]
    taken = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in data["panels"]]
    assert len(set(taken)) == len(taken)
    for panel, one in zip(data["panels"], shown.panels, strict=True):
        assert panel["description"] == one.description
        assert [target["expr"] for target in panel["targets"]] == [
            query.expression for query in one.queries
        ]
        letters = [target["refId"] for target in panel["targets"]]
        assert all(letters)
        assert len(set(letters)) == len(letters)
        if one.draw == "heatmap":
            assert panel["type"] == "heatmap"
            assert {target["format"] for target in panel["targets"]} == {"heatmap"}
    ids = [panel["id"] for panel in data["panels"]]
    assert len(set(ids)) == len(ids)
    names = [variable["name"] for variable in data["templating"]["list"]]
    assert names == ["datasource", "job", "instance", *(["name"] if shown.named else [])]


@pytest.mark.parametrize("shown", DASHBOARDS, ids=lambda shown: shown.uid)
def test_a_dashboard_has_a_menu_of_the_others(shown: Dashboard) -> None:
    boards = [json.loads(path.read_text()) for path in HERE.glob("*.json")]
    mine = next(board for board in boards if board["uid"] == shown.uid)
    [link] = mine["links"]
    assert link["type"] == "dashboards"
    assert all(set(link["tags"]) <= set(board["tags"]) for board in boards)


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian: apt-get install prometheus)",
)
@pytest.mark.parametrize(
    "command", [["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]]
)
def test_rules(command: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_every_alert_has_a_runbook() -> None:
    text = (HERE / "rules.yml").read_text()
    alerts = text.split("- alert: ")[1:]
    assert len(alerts) >= 5
    for alert in alerts:
        for part in ("summary:", "Meaning:", "Be sure:", "Do:"):
            assert part in alert, (alert.split("\n", 1)[0], part)
