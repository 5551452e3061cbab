"""Hooks of mkdocs: the pages of the repository's root, and links that leave docs/.

On a code host, the pages in docs/ link to pictures, results and sources elsewhere in the
repository. On the site, pictures and results are copied, the pages of the root are pages of the
site, and a link to a source is its name alone.
"""

from __future__ import annotations

import posixpath
import re
import runpy
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
_COPIED = (".png", ".svg", ".json")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the root's pages, and the files that pages show."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    for result in sorted((ROOT / "benchmarks" / "results").iterdir()):
        if result.suffix in _COPIED:
            name = f"benchmarks/results/{result.name}"
            files.append(File.generated(config, name, abs_src_path=str(result)))
    write = runpy.run_path(str(ROOT / "scripts" / "benchmarks_page.py"))["benchmarks_page"]
    page = write(ROOT / "benchmarks")
    files.append(File.generated(config, "benchmarks.md", content=page))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Replace the links that lead out of docs/."""
    source = page.file.src_uri
    is_of_root = source in (*PAGES.values(), "benchmarks.md")
    folder = "" if is_of_root else posixpath.join("docs", posixpath.dirname(source))

    def replaced(found: re.Match[str]) -> str:
        image, text, target, anchor = found[1], found[2], found[3], found[4] or ""
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        name = posixpath.normpath(posixpath.join(folder, target))
        if name in PAGES:
            name = PAGES[name]
        elif name.startswith("docs/"):
            name = name.removeprefix("docs/")
        elif not name.endswith(_COPIED):
            return text
        relative = posixpath.relpath(name, posixpath.dirname(source) or ".")
        return f"{image}[{text}]({relative}{anchor})"

    return _LINK.sub(replaced, markdown)
