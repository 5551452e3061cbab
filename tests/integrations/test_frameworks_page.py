"""Each program in docs/frameworks.md runs, in a process of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import python

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "frameworks.md").read_text()
PROGRAMS = re.findall(r"^## ([^\n]+)\n\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_each_library_has_a_program() -> None:
    listed = re.findall(r"^\| \[([^\]]+)\]", PAGE, re.MULTILINE)
    assert [name for name, _ in PROGRAMS] == [name.removesuffix(" 3") for name in listed]


@pytest.mark.parametrize(("name", "program"), PROGRAMS, ids=[name for name, _ in PROGRAMS])
def test_program(name: str, program: str) -> None:
    done = python(program)
    assert done.returncode == 0, done.stderr
