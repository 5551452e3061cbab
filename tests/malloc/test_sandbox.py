"""A program that a filter kills for other system calls than those of glibc's malloc lives on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import vrange.malloc


@pytest.mark.parametrize("before", ["used", "freed"])  # vrange's thread runs once a block was freed
def test_a_program_that_restricts_its_system_calls(tmp_path: Path, before: str) -> None:
    program = tmp_path / "sandbox"
    source = Path(__file__).with_name("sandbox.c")
    subprocess.run([os.environ.get("CC", "gcc"), "-O1", "-w", source, "-o", program], check=True)
    for preloaded in ("", vrange.malloc.library()):
        environment = {**os.environ, "LD_PRELOAD": preloaded}
        done = subprocess.run(
            [program, before], env=environment, capture_output=True, timeout=30, check=False
        )
        if done.returncode == 77:
            pytest.skip("this machine refuses filters for all threads")
        assert (done.returncode, done.stderr) == (0, b"")
