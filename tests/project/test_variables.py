"""docs/variables.md lists each environment variable that the sources read, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "variables.md"
FOLDERS = ("native", "runtime", "scripts", "tests", "benchmarks", "examples", "dashboards", ".ci")
NAME = r"VRANGE_[A-Z][A-Z_]*"

# Where a variable is read. Passing one on, as in env={"VRANGE_RUNG": …}, is not reading it.
IN_C = re.compile(rf'getenv\("({NAME})"\)')
IN_PYTHON = re.compile(
    rf"""environ(?:\.(?:get|pop)\(|\[)["']({NAME})["'](?!\]\s*=[^=])|getenv\(["']({NAME})["']"""
)
IN_SHELL = re.compile(rf"\$\{{?({NAME})")
# … and by way of a constant: VARIABLE = "VRANGE_…", and then environ.get(VARIABLE).
CONSTANT = re.compile(rf'^(\w+) = "({NAME})"', re.MULTILINE)
BY_CONSTANT = re.compile(r"environ(?:\.(?:get|pop)\(|\[)([A-Za-z_.]+)\b")


def sources() -> list[Path]:
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*") if file.is_file()]
    return [file for file in files if file != Path(__file__).resolve()]


def reads(file: Path) -> set[str]:
    if file.suffix in (".c", ".h"):
        return set(IN_C.findall(file.read_text()))
    if file.suffix == ".py" or (not file.suffix and "python" in first_line(file)):
        text = file.read_text()
        found = {name for pair in IN_PYTHON.findall(text) for name in pair if name}
        used = {name.rpartition(".")[2] for name in BY_CONSTANT.findall(text)}
        return found | {value for name, value in CONSTANT.findall(text) if name in used}
    if "sh" in first_line(file):
        return set(IN_SHELL.findall(file.read_text()))
    return set()


def first_line(file: Path) -> str:
    with file.open("rb") as content:
        line = content.readline(200)
    return line.decode(errors="replace") if line.startswith(b"#!") else ""


def listed() -> dict[str, str]:
    """The variables that the page has a row for, and where it says that they are read."""
    text = PAGE.read_text().partition("## Macros")[0]
    rows = re.findall(rf"^\| `({NAME})` \|[^|]*\|([^|]*)\|", text, re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a variable is listed twice"
    return dict(rows)


def test_each_variable_that_is_read_is_listed_and_no_other() -> None:
    read = {name: str(file.relative_to(ROOT)) for file in sources() for name in reads(file)}
    assert len(read) >= 5, "the patterns find nothing any more"
    assert sorted(listed()) == sorted(read), read


def test_the_files_that_are_named_read_the_variable() -> None:
    for name, readers in listed().items():
        files = [file for file in re.findall(r"`([^`]+)`", readers) if "/" in file]
        assert files, f"{name}: no file is named"
        for file in files:
            assert (ROOT / file).exists(), f"{name}: {file} does not exist"
            assert name in reads(ROOT / file), f"{name} is not read in {file}"
