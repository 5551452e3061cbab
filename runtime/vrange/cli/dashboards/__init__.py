"""`vrange dashboards`: write the Grafana dashboards and the Prometheus rules into a directory.

A wheel has the files beside this module, where setup.py puts them. In a checkout they are in the
top-level dashboards/, and nowhere a second time.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

__all__ = ["add_parser", "files", "run"]

_HERE = Path(__file__).resolve().parent
_PLACES = (_HERE, _HERE.parents[3] / "dashboards")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `vrange dashboards`."""
    parser = subparsers.add_parser(
        "dashboards",
        help="list or write the Grafana dashboards and Prometheus rules",
        description="List the Grafana dashboards and the Prometheus rules of this version, or "
        "write them. In Grafana, use Dashboards, New, Import; in prometheus.yml, name rules.yml "
        "under rule_files.",
    )
    parser.add_argument(
        "--write", metavar="DIR", help="write them into DIR, which is made if it is missing"
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that differ")


def files() -> dict[str, bytes]:
    """Return the files by name: dashboards (`*.json`) and rules (`rules.yml`)."""
    for place in _PLACES:
        found = [*sorted(place.glob("*.json")), *place.glob("rules.yml")]
        if found:
            return {path.name: path.read_bytes() for path in found}
    raise FileNotFoundError(
        f"no dashboards in {' or '.join(map(str, _PLACES))}: install vrange again"
    )


def run(args: argparse.Namespace) -> int:
    """List the files, or write them all or none."""
    found = files()
    if args.write is None:
        print(*found, sep="\n")
        return 0
    where = Path(args.write)
    where.mkdir(parents=True, exist_ok=True)
    # A dashboard that the user has edited is the user's.
    edited = [
        name
        for name, content in found.items()
        if os.path.lexists(where / name) and (where / name).read_bytes() != content
    ]
    if edited and not args.force:
        raise FileExistsError(f"{where} has other {', '.join(edited)}; --force overwrites them")
    for name, content in found.items():
        (where / name).write_bytes(content)
        print(where / name)
    return 0
