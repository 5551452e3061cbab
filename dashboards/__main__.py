"""Writes the dashboards' JSON beside this file; with --check, says which are out of date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dashboards.grafana import files

HERE = Path(__file__).parent


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if any differs")
    check = parser.parse_args().check
    stale = []
    for name, text in files().items():
        path = HERE / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    print(*stale, sep="\n", end="\n" if stale else "")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
