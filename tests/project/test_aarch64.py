"""The other machine that vrange is for: what can be said of it from here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parent.parent / "native"
COMPILER = "aarch64-linux-gnu-gcc"
OPTIONS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"]


def test_the_core_compiles() -> None:
    """All but what wants an interpreter's headers for that machine. See also test_switch.py."""
    if shutil.which(COMPILER) is None:
        pytest.skip(reason="needs gcc-aarch64-linux-gnu and libc6-dev-arm64-cross")
    with_python = re.compile(r'#include [<"](Python|abi3|hit|flight|deep|recursion)\.h[>"]')
    core = [path for path in NATIVE.glob("*.c") if not with_python.search(path.read_text())]
    assert len(core) > 20
    subprocess.run([COMPILER, *OPTIONS, "-fsyntax-only", *core], check=True)
