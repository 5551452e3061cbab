"""The other machine that vrange is for: what can be said of it from here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "native"
COMPILER = "aarch64-linux-gnu-gcc"
OPTIONS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"]
INCLUDES = [f"-I{NATIVE}", f"-I{NATIVE / 'core'}"]


def test_the_core_compiles() -> None:
    """The core, which needs no interpreter's headers for that machine. See also test_switch.py."""
    if shutil.which(COMPILER) is None:
        pytest.skip(reason="needs gcc-aarch64-linux-gnu and libc6-dev-arm64-cross")
    core = sorted((NATIVE / "core").rglob("*.c"))
    assert len(core) > 20
    subprocess.run([COMPILER, *OPTIONS, *INCLUDES, "-fsyntax-only", *core], check=True)
