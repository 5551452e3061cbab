"""Runs that are kept, a line of JSON each: the same command goes on where it was interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = dict[str, Any]


class Record:
    """A file of runs by their names."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.runs: dict[str, Run] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]  # the last line may be cut
            path.write_text("".join(whole))
            self.runs = {run.pop("name"): run for run in map(json.loads, whole)}

    def once(self, name: str, run: Callable[[], Run]) -> None:
        """Run it and keep what it returns, unless the file has a run of this name."""
        if name in self.runs:
            return
        begun = time.monotonic()
        found = run()
        self.runs[name] = found
        with self._path.open("a") as file:
            file.write(json.dumps({"name": name, **found}) + "\n")
        print(f"{time.monotonic() - begun:6.1f} s  {name}: {found}", flush=True)

    def of(self, kind: str) -> list[Run]:
        """Return the runs whose name begins with `kind` and a space."""
        return [run for name, run in self.runs.items() if name.startswith(f"{kind} ")]
