"""A program that a filter kills for other system calls than those of glibc's malloc lives on."""

from __future__ import annotations

from pathlib import Path

import pytest
from preload_support import compiled, start


@pytest.mark.parametrize("before", ["used", "freed"])  # vrange's thread runs once a block was freed
def test_a_program_that_restricts_its_system_calls(tmp_path: Path, before: str) -> None:
    program = compiled(Path(__file__).with_name("sandbox.c"), tmp_path / "sandbox")
    for preloaded in (False, True):
        done = start(program, before, preloaded=preloaded)
        if done.returncode == 77:
            pytest.skip("this machine refuses filters for all threads")
        assert (done.returncode, done.stderr) == (0, b"")
