"""`vrange top` shows the processes of a service together."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vrange.cli import main
from vrange.cli.top.figures import AccountFigures, ProcessFigures, services_of

WORKER = """
import sys, vrange
cache = vrange.VolatileCache(shared="tiles")
if sys.argv[1] == "first":
    for n in range(10):
        cache[n] = b"x" * 1_000_000
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_a_service_has_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("VRANGE_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, which],
            env=os.environ | {"VRANGE_SERVICE": service},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for which, service in (("first", "shop"), ("second", "shop"), ("first", "other"))
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n"
        assert main(["top", "--once", "--interval", "0.1"]) == 0
    finally:
        for worker in workers:
            worker.communicate()
    picture = capsys.readouterr().out
    together = picture.index("shop, 2 processes together")
    for worker in workers[:2]:
        assert picture.index(f"of shop, process {worker.pid}") > together
    assert picture.count("together") == 1
    (row,) = re.findall(r"tiles.*", picture[together:].partition("process ")[0].partition("╰")[0])
    assert re.search(r"\b(9\.\d+|10(\.\d)?)M\b", row), row


def _process(pid: int, key: str, *accounts: AccountFigures) -> ProcessFigures:
    return ProcessFigures(
        pid=pid,
        name="python",
        service="",
        service_key=key,
        rung="refault",
        memory_usage_bytes=None,
        memory_limit_bytes=None,
        purged_bytes_per_second=0,
        refaults_per_second=0,
        hit_ratio=None,
        stack_high_water_bytes=0,
        stack_limit_bytes=0,
        stack_returned_bytes=0,
        accounts=list(accounts),
    )


def _account(idle: int, asked: float, ratio: float | None) -> AccountFigures:
    sizes = {"pinned": 0, "hot": 0, "idle": idle, "offered": 1, "purged": 0}
    return AccountFigures("a", "cache", sizes, asked, ratio, 2.0, 0.0, None, None)


def test_caches_of_one_name_are_summed_and_ratios_are_weighed() -> None:
    service, alone = services_of(
        [
            _process(1, "group-1", _account(10, 300, 1.0)),
            _process(3, "group-3", _account(5, 0, None)),
            _process(2, "group-1", _account(20, 100, 0.6)),
        ]
    )
    assert [one.pid for one in service.processes] == [1, 2]
    (account,) = service.accounts
    assert (account.bytes["idle"], account.bytes["offered"]) == (30, 2)
    assert account.requests_per_second == 400
    assert account.hit_ratio == pytest.approx(0.9)
    assert account.purged_per_second == 4
    assert alone.accounts[0].hit_ratio is None
