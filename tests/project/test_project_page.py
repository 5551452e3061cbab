"""What package indexes show of a README."""

from __future__ import annotations

import doctest
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "project_page.py"))
project_page = MODULE["project_page"]
SOURCE = "https://example.org/vrange"


def test_examples() -> None:
    parsed = doctest.DocTestParser().get_doctest(project_page.__doc__, MODULE, "page", None, 0)
    assert doctest.DocTestRunner().run(parsed).failed == 0


@pytest.mark.parametrize(
    ("written", "without", "with_source"),
    [
        ("[`a`](docs/a.md)", "`a`", f"[`a`]({SOURCE}/blob/v1/docs/a.md)"),
        ("[a [b]](LICENSE)", "a [b]", f"[a [b]]({SOURCE}/blob/v1/LICENSE)"),
        ("[a\nb](docs/)", "a\nb", f"[a\nb]({SOURCE}/blob/v1/docs/)"),
        ('[a](b.md "Title")', "a", f'[a]({SOURCE}/blob/v1/b.md "Title")'),
        ("x ![a](b.png) y", "x  y", f"x ![a]({SOURCE}/raw/v1/b.png) y"),
        ("[a](#limits)", "a", "a"),
    ],
)
def test_relative_links(written: str, without: str, with_source: str) -> None:
    assert project_page(written, None, "v1") == without
    assert project_page(written, SOURCE, "v1") == with_source
    assert project_page(written, SOURCE + "/", "v1") == with_source


@pytest.mark.parametrize(
    "text",
    [
        "[a](https://example.org/b.md), ![c](https://example.org/d.png), [m](mailto:a@example.org)",
        "calls `table[1](a/b.py)` and ``x` [1](a)``",
        "```python\ntable[1](a)\n\n\n```\n",
        "~~~\ntable[1](a)\n~~~",
        "an array[1] (docs/a.md)",
    ],
)
def test_what_stays_as_it_is(text: str) -> None:
    assert project_page(text, None, "v1") == text
    assert project_page(text, SOURCE, "v1") == text
