"""The programs in docs/recipes.md run, and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cgroup_support import in_cgroup
from support import MIB, succeeds

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text()
DEEP, JOB = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_a_recursion_100_000_levels_deep() -> None:
    levels, characters, returned = succeeds(DEEP).splitlines()
    assert levels == "100000 levels by a function of yours"
    assert characters == "1500000 characters by the standard library"
    assert int(returned.split()[0]) > 0


@pytest.mark.memory_cgroup
def test_a_pandas_job_in_300_mib() -> None:
    *reports, info = in_cgroup(JOB, limit=300 * MIB).splitlines()
    assert [line.split()[0] for line in reports] == ["turnover", "dearest", "returns"]
    hits, again = (int(re.findall(rf"\b{what}=(\d+)", info)[0]) for what in ("hits", "purged"))
    assert "misses=12" in info, info
    assert hits + again == 24, info  # how many of them are hits depends on what else runs
