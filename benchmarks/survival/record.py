"""Runs that are kept, a line of JSON each, so that a series can be interrupted and go on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.survival.matrix import Case


class Record:
    """A file of runs. Each run is written as soon as it is added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.runs: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            whole = [
                line for line in path.read_text().splitlines(keepends=True) if line[-1] == "\n"
            ]
            path.write_text("".join(whole))  # the last line may be cut
            self.runs = [json.loads(line) for line in whole]
        self._known = {(run["case"], run["contender"]) for run in self.runs}

    def has(self, case: Case, contender: str) -> bool:
        return (case.key, contender) in self._known

    def add(self, case: Case, contender: str, run: dict[str, Any]) -> None:
        line = {"case": case.key, "contender": contender, **asdict(case), **run}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.runs.append(line)
        self._known.add((case.key, contender))
