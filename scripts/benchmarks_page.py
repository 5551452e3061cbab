"""The page on benchmarks of the site, from the JSON files in benchmarks/results.

`scripts/docs_hooks.py` adds it. Each target is on it, whether it is met or missed.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

_HEAD = """# Benchmarks

Each benchmark measures vrange beside its peers, alternately in one sitting, and has targets. This
page is made from the files that the benchmarks wrote: {targets} targets of {benchmarks} benchmarks,
**{missed} of them missed**. The missed ones come first in each table.

`python -m benchmarks.NAME` in a checkout measures on your machine, and `vrange bench` does some of
it in a minute wherever vrange is installed. Many figures are from a machine with two cores that
other programs used as well: compare ratios, not times.

| benchmark | targets | missed |
| --- | ---: | ---: |
{summary}
"""


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def _question(benchmarks: Path, name: str) -> str:
    """Return the first paragraph of what the benchmark's source says about itself."""
    for source in (benchmarks / f"{name}.py", benchmarks / name / "__init__.py"):
        if source.exists():
            text = ast.get_docstring(ast.parse(source.read_text())) or ""
            return " ".join(text.partition("\n\n")[0].split())
    return ""


def _machine(machine: dict[str, Any]) -> str:
    parts = [
        machine["processor"],
        f"{machine['cores']} cores",
        f"{machine['memory_gib']:.0f} GiB",
        f"Linux {machine['kernel']}",
        f"CPython {machine['python']}",
        f"rung {machine['rung']}" if machine.get("rung") else "",
    ]
    return ", ".join(part for part in parts if part)


def _section(benchmarks: Path, name: str, found: dict[str, Any]) -> str:
    targets = sorted(found["targets"], key=lambda target: target["met"])
    lines = [f"## {name}", "", _question(benchmarks, name), ""]
    if (benchmarks / "results" / f"{name}.png").exists():
        lines += [f"![{name}](benchmarks/results/{name}.png)", ""]
    lines += ["| what | | measured | target |", "| --- | --- | ---: | ---: |"]
    for target in targets:
        bound = f"{target['sense']} {_number(target['bound'])}"
        verdict = "met" if target["met"] else "**missed**"
        figures = f"{_number(target['value'])} | {bound}"
        lines.append(f"| {_cell(target['what'])} | {verdict} | {figures} |")
    lines += [
        "",
        f"{_machine(found['machine'])}. [All figures](benchmarks/results/{name}.json)",
        "",
    ]
    return "\n".join(lines)


def benchmarks_page(benchmarks: Path) -> str:
    """Return the page in Markdown.

    Parameters
    ----------
    benchmarks : Path
        The directory with the benchmarks and their results.

    Returns
    -------
    str
        A summary, and a section for each result that has targets.

    """
    results = {}
    for path in sorted((benchmarks / "results").glob("*.json")):
        found = json.loads(path.read_text())
        if found.get("targets"):
            results[path.stem] = found
    missed = {
        name: sum(not target["met"] for target in found["targets"])
        for name, found in results.items()
    }
    summary = [
        f"| [{name}](#{name}) | {len(found['targets'])} | {missed[name] or ''} |"
        for name, found in results.items()
    ]
    head = _HEAD.format(
        targets=sum(len(found["targets"]) for found in results.values()),
        benchmarks=len(results),
        missed=sum(missed.values()),
        summary="\n".join(summary),
    )
    return "\n".join([head, *(_section(benchmarks, *each) for each in results.items())])
