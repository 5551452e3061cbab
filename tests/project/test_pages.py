"""The pages of docs/ and the README: examples run, links and file names lead somewhere."""

from __future__ import annotations

import ast
import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(pycon|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The line above each block of a page in that language, and its text."""
    text = page.read_text()
    return [
        (text.count("\n", 0, found.start()) + 1, found[2])
        for found in BLOCK.finditer(text)
        if found[1] == language
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_a_page(page: Path) -> None:
    """Blocks marked pycon are sessions: they run one after the other and answer as shown."""
    session = []
    for line, text in blocks(page, "pycon"):
        for example in doctest.DocTestParser().get_examples(text):
            example.lineno += line
            session.append(example)
    test = doctest.DocTest(session, {}, page.name, str(page), 0, None)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said: list[str] = []
    assert runner.run(test, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_of_a_page_is_python(page: Path) -> None:
    for line, text in blocks(page, "python"):
        try:
            compile(text, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
        except SyntaxError as error:
            pytest.fail(f"{page.name}:{line + (error.lineno or 0)}: {error.msg}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_each_alert_is_on_its_page() -> None:
    alerts = re.findall(r"- alert: (\w+)", (ROOT / "dashboards" / "rules.yml").read_text())
    rows = re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(alerts)


def test_a_page_has_examples() -> None:
    assert blocks(ROOT / "docs" / "caches.md", "pycon")


def test_the_files_that_the_architecture_names_exist() -> None:
    """By path, or, in the rows of a room and in the text, by name alone."""
    files = [
        file.relative_to(ROOT).as_posix()
        for folder in ("native", "runtime", "tests", "docs", "dashboards")
        for file in (ROOT / folder).rglob("*")
    ] + [file.name for file in ROOT.iterdir()]
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`([\w./*-]+(?:\.(?:[chS]|py|md|toml)|/))`", text)
    assert len(named) > 80
    for name in named:
        pattern = re.escape(name.rstrip("/")).replace(r"\*", ".*").replace("NAME", r"\w+")
        if name != "runtime/vrange/integrations/":
            assert any(re.search(f"(^|/){pattern}$", file) for file in files), name
