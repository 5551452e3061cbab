"""Code that uses vrange means to type checkers what it does."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

USER_CODE = Path(__file__).with_name("user_code.py")


def check(*command: str, place: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", *command], cwd=place, capture_output=True, text=True, timeout=110
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_user_code_runs() -> None:
    runpy.run_path(str(USER_CODE), run_name="__main__")


def test_mypy_finds_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    check("mypy", "--strict", "--config-file=", "--cache-dir=cache", str(USER_CODE), place=tmp_path)


def test_pyright_finds_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    settings = {
        "include": [str(USER_CODE)],
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": True,
        "enableTypeIgnoreComments": False,
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    check("pyright", "--pythonpath", sys.executable, place=tmp_path)
