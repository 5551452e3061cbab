"""The documentation as a site: it builds without a warning, and has a page for each document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    built = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert built.returncode == 0, built.stderr
    return place


class Addresses(HTMLParser):
    """What a page of the site fetches from elsewhere, and the files of the site that it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.local: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name not in ("src", "href") or not value or value.startswith(("#", "data:")):
                continue
            if "://" not in value:
                self.local.append(value.partition("#")[0])
            elif tag in ("script", "link", "img"):
                self.fetched.append(value)


def test_each_document_is_a_page(site: Path) -> None:
    for document in (ROOT / "docs").rglob("*.md"):
        assert (site / document.relative_to(ROOT / "docs").with_suffix(".html")).exists(), document


def test_a_page_fetches_nothing_from_elsewhere_and_names_files_that_are_there(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        if page.name == "404.html":
            continue  # served from any address, so its links are absolute
        found = Addresses(page.read_text())
        assert not found.fetched, page
        for target in found.local:
            assert (page.parent / target).exists(), (page, target)


def test_the_page_on_benchmarks_has_each_target_and_says_which_are_missed(site: Path) -> None:
    text = (site / "benchmarks.html").read_text()
    targets = [
        target
        for path in (ROOT / "benchmarks" / "results").glob("*.json")
        for target in json.loads(path.read_text()).get("targets", ())
    ]
    missed = sum(not target["met"] for target in targets)
    assert f"{len(targets)} targets" in text
    assert f"{missed} of them missed" in text
    assert text.count("<td>met</td>") == len(targets) - missed
    assert text.count("<td><strong>missed</strong></td>") == missed


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("caches", ["cached", "VolatileCache", "CacheInfo", "NotKeptWarning"]),
        ("stacks", ["deep_call", "deep_threads", "trim_stack"]),
        ("memory", ["memory_limit", "set_reserve", "Arena"]),
        ("arrays", ["VolatileArray", "pattern"]),
        ("heap", ["use_for_numpy", "trim", "enable", "watch"]),
        ("metrics", ["register", "stats"]),
    ],
)
def test_the_reference_has_the_public_names(site: Path, page: str, names: list[str]) -> None:
    text = (site / "reference" / f"{page}.html").read_text()
    for name in names:
        assert f'.{name}"' in text, name
