"""Print which branches of native/core no test takes, and which of them are explained.

    branches.py FILE [--all]

FILE is what gcovr's --json wrote (scripts/coverage). tests/native/unreached.toml explains branches
by file, function and text of the line; an entry that matches no line is an error. An entry of any
file or function, "*", explains only what is missing of lines that ran. `--all` lists the explained
lines as well.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CORE = "native/core/"


@dataclass(frozen=True)
class Entry:
    """Lines of one function whose branches are explained."""

    reason: str
    file: str
    function: str
    text: str

    def explains(self, file: str, function: str, line: str, ran: bool) -> bool:
        """Return whether this is one of the entry's lines."""
        if self.file not in ("*", file) or self.function not in ("*", function):
            return False
        return self.text in line and (ran or "*" not in (self.file, self.function))


def entries() -> list[Entry]:
    """Read the table: under each reason, `file function`, and a part of the line if not all."""
    table = tomllib.loads((ROOT / "tests/native/unreached.toml").read_text("utf-8"))
    found = []
    for reason, section in table.items():
        for where in section["lines"]:
            file, function, *text = where.split(maxsplit=2)
            found.append(Entry(reason, file, function, *text or [""]))
    return found


def main() -> int:
    """Print the table, and return 1 if an entry matches nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--all", action="store_true", help="list explained lines, too")
    options = parser.parse_args()
    explanations = entries()
    unmatched, unneeded = set(explanations), set(explanations)
    total: collections.Counter[str] = collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()
    print(f"{'taken':>7} {'of':>5} {'taken':>6} {'+ explained':>12}   file, lines not explained")
    for measured in json.loads(options.file.read_text())["files"]:
        if not measured["file"].startswith(CORE):
            continue
        file = measured["file"].removeprefix(CORE)
        source = (ROOT / CORE / file).read_text("utf-8").splitlines()
        count: collections.Counter[str] = collections.Counter()
        listed = []
        for line in measured["lines"]:
            text = source[line["line_number"] - 1]
            function = line.get("function_name", "").lstrip("*")
            ran = line["count"] > 0
            matches = {each for each in explanations if each.explains(file, function, text, ran)}
            unmatched -= {each for each in unmatched if each.explains(file, function, text, True)}
            missing = missed(line)
            count["all"] += len(line["branches"])
            count["missed"] += missing
            if not missing:
                continue
            unneeded -= matches
            if matches:
                count["explained"] += missing
                reasons[min(each.reason for each in matches)] += missing
            if not matches or options.all:
                why = "".join(f"  [{each.reason}]" for each in matches)
                listed.append(f"    {line['line_number']:4} {function}: {text.strip()}{why}")
        total += count
        if count["all"]:
            print(row(count), f" {file}")
        print(*listed, sep="\n", end="\n" if listed else "")
    print(row(total), " native/core")
    for reason, branches in reasons.most_common():
        print(f"{branches:7} explained: {reason}")
    for each in sorted(unneeded - unmatched, key=str):
        print(f"taken after all: {each.file} {each.function} {each.text}")
    for each in sorted(unmatched, key=str):
        print(f"matches no line: {each.file} {each.function} {each.text}", file=sys.stderr)
    return bool(unmatched)


def missed(line: dict[str, Any]) -> int:
    """Return how many of a line's branches were never taken."""
    return sum(branch["count"] == 0 for branch in line["branches"])


def row(count: collections.Counter[str]) -> str:
    """Return the figures of a file or of all."""
    taken = count["all"] - count["missed"]
    most = max(count["all"], 1)
    explained = 100 * (taken + count["explained"]) / most
    return f"{taken:7} {count['all']:5} {100 * taken / most:5.1f}% {explained:11.1f}%"


if __name__ == "__main__":
    sys.exit(main())
