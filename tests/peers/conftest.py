"""Test suites that were written for other caches, run against vrange.

What differs stands with its reason in differences.toml. A test that is listed there must fail: so
the list can't outlive the difference.
"""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
DIFFERENCES: dict[str, Any] = tomllib.loads((HERE / "differences.toml").read_text())

# Some distributions ship CPython without its tests.
collect_ignore = [
    name
    for name, suite in [
        ("test_of_lru_cache.py", "test.test_functools"),
        ("test_of_mappings.py", "test.mapping_tests"),
    ]
    if importlib.util.find_spec(suite) is None
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent != HERE:
            continue
        for listed, strict, run in (
            (DIFFERENCES, True, True),
            (DIFFERENCES.get("unsettled", {}), False, True),
            (DIFFERENCES.get("not_run", {}), True, False),
        ):
            reason = listed.get(item.path.stem, {}).get(item.name)
            if reason:
                item.add_marker(pytest.mark.xfail(strict=strict, run=run, reason=reason))
