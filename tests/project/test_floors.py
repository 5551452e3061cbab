"""The floors of the house: a room calls only rooms below it, and no two files call each other.

docs/architecture.md draws them. import-linter checks the rooms of the package by the contract in
pyproject.toml; this file runs it and checks the rest.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "native"

# From the ground up. Rooms of one floor do not know each other.
FLOORS: list[set[str]] = [
    {"core/os"},
    {"core/base"},
    {"core/counters", "core/peers"},
    {"core/pressure"},
    {"core/ranges", "core/arrays", "core/stacks", "core/heap"},
    {"core/reserve", "core/process", "core/service"},
    {"python", "python/cache", "python/arrays", "python/stacks", "python/heap", "malloc"},
]
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}

INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def room_of(file: Path) -> str:
    return file.parent.relative_to(NATIVE).as_posix()


def included(file: Path) -> list[Path]:
    """The headers of ours that a file includes, as the compiler would find them."""
    found = []
    for name in INCLUDE.findall(file.read_text()):
        header = next((d / name for d in (NATIVE, NATIVE / "core") if (d / name).exists()), None)
        assert header is not None, f"{file}: {name} is nowhere"
        found.append(header)
    return found


def may_call(file: Path, other: Path) -> bool:
    mine, theirs = room_of(file), room_of(other)
    if theirs == mine or (theirs == "python" and mine.startswith("python/")):
        return True
    return FLOOR_OF[theirs] < FLOOR_OF[mine]


def c_files() -> list[Path]:
    return sorted([*NATIVE.rglob("*.c"), *NATIVE.rglob("*.h")])


def circle(graph: Mapping[str, Iterable[str]]) -> list[str] | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return None


def test_every_file_of_the_native_part_is_in_a_room() -> None:
    rooms = {room_of(file) for file in c_files()} - {".", "core"}
    assert rooms == set(FLOOR_OF)
    assert [f.name for f in c_files() if room_of(f) == "."] == ["vrange.h"]
    assert [f.name for f in c_files() if room_of(f) == "core"] == ["exported.h"]
    assert len(FLOORS) <= 7


@pytest.mark.parametrize("file", c_files(), ids=lambda file: str(file.relative_to(NATIVE)))
def test_a_native_file_includes_only_its_own_room_and_floors_below(file: Path) -> None:
    for header in included(file):
        if room_of(header) in (".", "core"):
            continue
        assert file != NATIVE / "vrange.h", "the interface stands by itself"
        assert may_call(file, header), f"{header.relative_to(NATIVE)} is not below"


def test_the_core_needs_no_python() -> None:
    for file in (NATIVE / "core").rglob("*.[ch]"):
        assert not re.search(r"#include [<\"](Python|structmember|abi3)", file.read_text()), file


def test_native_files_that_share_a_name_form_no_circle() -> None:
    """A header and the file that implements it count as one."""
    graph: dict[str, set[str]] = defaultdict(set)
    for file in c_files():
        me = file.relative_to(NATIVE).with_suffix("").as_posix()
        others = {h.relative_to(NATIVE).with_suffix("").as_posix() for h in included(file)}
        graph[me] |= others - {me}
    assert circle(graph) is None


COMMENTS_AND_STRINGS = re.compile(r"""/\*.*?\*/|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", re.DOTALL)
FUNCTION = re.compile(r"^([A-Za-z_][\w \t*()]*?)\b(\w+)\([^;{}]*\)\s*\{", re.MULTILINE)


def code_of(file: Path) -> str:
    return COMMENTS_AND_STRINGS.sub(" ", file.read_text())


def uses(code: str, name: str) -> bool:
    """Whether the code calls a function of another file, or takes its address."""
    if re.search(rf"(?<!return)\b(?!return)\w+[ *]+{name}\s*[,;=)\[]", code):
        return False  # a variable, a parameter or a member has the same name
    return bool(re.search(rf"(?<![.>\w]){name}\b", code))


def calls(files: Iterable[Path]) -> list[tuple[Path, str, Path]]:
    """Each call of a function of another file: the caller, the function, and its file.

    Includes hide some: a function may be declared in a header that is not its own file's.
    """
    codes = {file: code_of(file) for file in files}
    defined: dict[str, set[Path]] = defaultdict(set)
    own: dict[Path, set[str]] = defaultdict(set)
    for file, code in codes.items():
        for before, name in FUNCTION.findall(code):
            own[file].add(name)
            if room_of(file) == "malloc" and not name.startswith(("malloc_return_unused", "libc_")):
                continue  # the C library's functions, which every file calls
            if file.suffix == ".c" and not re.search(r"\bstatic\b", before):
                defined[name].add(file)
    return [
        (file, name, definer)
        for file, code in codes.items()
        if file.suffix == ".c"
        for name in set(re.findall(r"\w+", code)) & defined.keys() - own[file]
        if uses(code, name)
        for definer in defined[name]
    ]


def test_native_files_call_only_floors_below_and_form_no_circle() -> None:
    found = calls(c_files())
    assert {"vrange_free", "index_find"} <= {name for _, name, _ in found}
    graph: dict[str, set[str]] = defaultdict(set)
    edges = [(caller, definer) for caller, _, definer in found]
    edges += [(f, h) for f in c_files() for h in included(f) if h != NATIVE / "vrange.h"]
    for one, other in edges:
        me, it = (f.relative_to(NATIVE).with_suffix("").as_posix() for f in (one, other))
        graph[me] |= {it} - {me}
    assert circle(graph) is None
    upward = [(caller.name, name) for caller, name, f in found if not may_call(caller, f)]
    assert upward == [], "calls of a room that is not below: register the function from above"


def test_a_file_of_the_cache_calls_only_rows_below_its_own() -> None:
    """The rows of the table in docs/architecture.md, from the ground."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("The cache's room has floors of its own")[2].partition("\n### ")[0]
    rows = [re.findall(r"`(\w+)\.[ch]`", line) for line in table.splitlines()]
    row_of = {name: number for number, names in enumerate(rows) for name in names}
    files = [file for file in c_files() if room_of(file) == "python/cache"]
    assert sorted(row_of) == sorted({file.stem for file in files})
    not_below = [
        (caller.name, name)
        for caller, name, definer in calls(files)
        if row_of[definer.stem] >= row_of[caller.stem]
    ]
    assert not_below == []


def test_the_rooms_of_the_package_keep_their_floors() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


ABOVE_ALL_ROOMS = {"cli", "dask", "integrations"}  # what they do, users' code could do as well


def names_of_the_roof(file: Path) -> list[str]:
    """What a module takes from `vrange` itself, and not from a room: `*` is the roof as a whole."""
    package = ROOT / "runtime" / "vrange"
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                is_bound = alias.name == "vrange" or not alias.asname
                found += ["*"] * (alias.name.split(".")[0] == "vrange" and is_bound)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports name the package"
            if node.module == "vrange":
                found += [alias.name for alias in node.names]
    rooms = {path.name.partition(".")[0] for path in package.iterdir()}
    return [name for name in found if name not in rooms]


def test_only_rooms_above_all_others_import_the_roof() -> None:
    """import-linter can't say so: every import of a room is one of the package, too."""
    package = ROOT / "runtime" / "vrange"
    found = {
        file.relative_to(package).as_posix(): names
        for file in package.rglob("*.py")
        if file.parent != package or not file.name.startswith("__")
        if (names := names_of_the_roof(file))
    }
    assert {"cli/__init__.py", "dask/spilled.py", "integrations/_atomic.py"} <= set(found)
    low = {
        file: names for file, names in found.items() if file.split("/")[0] not in ABOVE_ALL_ROOMS
    }
    assert low == {}, "import the name from the room that has it"


def test_the_picture_of_the_floors_shows_all_rooms() -> None:
    native = {room.removeprefix("core/") for floor in FLOORS for room in floor}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    python = {room for layer in contract["layers"] for room in layer.split(" | ")} - {"__main__"}
    picture = (ROOT / "docs" / "architecture.svg").read_text()
    shown = re.findall(r'<text class="room"[^>]*>([^<]+)</text>', picture)
    assert sorted(shown) == sorted([*native, *python])


def test_the_modules_of_the_package_form_no_circle() -> None:
    modules = grimp.build_graph("vrange", exclude_type_checking_imports=True)
    graph = {m: modules.find_modules_directly_imported_by(m) - {"vrange"} for m in modules.modules}
    assert circle(graph) is None
