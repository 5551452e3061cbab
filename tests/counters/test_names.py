"""What is numbered is named once: in names.c, from where Python has it too."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from vrange._cgroup.limits import Source
from vrange._core import ffi, lib, names
from vrange._counters.names import KINDS, PRESSURE_LEVELS, RUNGS
from vrange._stacks.deep import Release
from vrange.pressure import Level

ROOT = Path(__file__).resolve().parents[2]
LISTS = {
    name: set(names(getattr(lib, name))) - {""}
    for name in dir(lib)
    if name.startswith("VRANGE_NAMES_")
}


def test_every_list_has_a_name_for_every_number() -> None:
    assert len(LISTS) == 9
    assert len(KINDS) == lib.VRANGE_KINDS
    assert KINDS[lib.VRANGE_KIND_STACK] == "stack"
    assert len(PRESSURE_LEVELS) == lib.VRANGE_PRESSURE_LEVELS
    assert lib.vrange_name(len(LISTS), 0) == ffi.NULL
    assert lib.vrange_name(-1, 0) == ffi.NULL
    assert lib.vrange_name(lib.VRANGE_NAMES_KINDS, -1) == ffi.NULL


@pytest.mark.parametrize("rung", RUNGS)
def test_the_native_side_takes_the_same_name_of_a_rung(rung: str) -> None:
    number = getattr(lib, f"VRANGE_RUNG_{rung.upper()}")
    assert RUNGS[number - 1] == rung
    code = "from vrange._core import lib; print(lib.vrange_rung())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "VRANGE_RUNG": rung},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) in (number, 0), "0: this machine refuses the rung"


def test_the_types_of_arguments_are_the_names() -> None:
    """A type checker reads them from the source, so they are spelled out once more."""
    assert set(get_args(Level)) == LISTS["VRANGE_NAMES_PRESSURE_LEVELS"]
    assert set(get_args(Release)) == LISTS["VRANGE_NAMES_RELEASES"]
    assert set(get_args(Source)) == LISTS["VRANGE_NAMES_LIMITS"]


def _strings(node: ast.AST) -> set[str]:
    elements: list[ast.expr | None] = []
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        elements = [*node.elts]
    elif isinstance(node, ast.Dict) and any(
        isinstance(v, ast.Constant | ast.Attribute) for v in node.values
    ):
        # By name a number or what the core calls it: a list. By name something else: a rule.
        elements = [*node.keys] if all(isinstance(v, ast.Attribute) for v in node.values) else []
    return {e.value for e in elements if isinstance(e, ast.Constant) and isinstance(e.value, str)}


def _lists_in(tree: ast.AST) -> Iterator[set[str]]:
    types = {
        id(node.slice)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Literal"
    }
    for node in ast.walk(tree):
        if id(node) not in types:
            yield _strings(node)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "runtime").rglob("*.py")), ids=lambda file: file.stem
)
def test_no_module_has_a_list_of_its_own(file: Path) -> None:
    for found in _lists_in(ast.parse(file.read_text())):
        for name, known in LISTS.items():
            assert not known <= found, f"{file} lists {name} again"


def test_no_other_native_file_spells_a_list() -> None:
    owners = {"names.c", "rung.c"}
    for file in (ROOT / "native").rglob("*.[ch]"):
        if file.name in owners:
            continue
        found = set(re.findall(r'"([^"\\]+)"', file.read_text()))
        for name, known in LISTS.items():
            assert not known <= found, f"{file} spells {name} again"


def test_the_size_of_a_huge_page_and_numpys_table_stand_in_one_file() -> None:
    files = list((ROOT / "native").rglob("*.[ch]"))
    for pattern, owner in (
        (r"#define \w*HUGE\w* .*(<< 20|MIB|2097152)", "os.h"),
        (r"\b(282|304|305|306|211) *[,}]", "numpy_table.h"),
    ):
        assert [f.name for f in files if re.search(pattern, f.read_text())] == [owner]


def test_python_reads_the_layout_of_the_segment_from_the_core() -> None:
    for file in (ROOT / "runtime" / "vrange" / "_counters").glob("*.py"):
        assert "struct.Struct" not in file.read_text(), file
    assert ffi.sizeof("segment_header") % 8 == 0
    assert ffi.sizeof("segment_slot") <= 4096
