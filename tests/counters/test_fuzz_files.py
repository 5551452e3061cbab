"""Segments and ledgers with any content are refused or read, and never worse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from segment_support import own_path

import vrange
from vrange._core import ffi, lib
from vrange._counters import segment
from vrange._counters.exposition import Gauges, families
from vrange._counters.ledger import Service, ledger_path, load, save
from vrange._counters.processes import running
from vrange._counters.totals import Totals

HEADER_BYTES = ffi.sizeof("segment_header")
NUMBERS = [name for name, of in ffi.typeof("segment_header").fields if of.type.kind == "primitive"]
EDGES = st.sampled_from([0, 1, 7, 8, 4096, 1 << 31, (1 << 32) - 1, (1 << 63), (1 << 64) - 1])


@pytest.fixture(scope="module")
def whole() -> bytes:
    with vrange.VolatileCache[str, bytes](name="whole", hot_bytes=0) as cache:
        cache.get_or_compute("k", lambda: b"v")
        return own_path().read_bytes()


class Collected(Collector):
    def __init__(self, totals: Totals) -> None:
        self.metrics = list(families([({"service": "any"}, totals, Gauges())], ["service"]))

    def collect(self) -> list[Metric]:
        return self.metrics


def exposed(totals: Totals) -> bytes:
    collected = Collected(totals)
    for sample in (sample for metric in collected.metrics for sample in metric.samples):
        assert 0 <= sample.value < float("inf"), sample
    registry = CollectorRegistry()
    registry.register(collected)
    return generate_latest(registry)


def check_segment(data: bytes) -> None:
    """It is refused, or it can be shown, saved and shown again."""
    try:
        with memoryview(data) as view:
            found = segment.parse(view)
    except segment.SegmentRefusedError:
        return
    totals = Totals()
    totals.add(found)
    exposed(totals)
    ended = Totals()
    ended.add(found, ended=True)
    exposed(Totals.from_json(json.loads(json.dumps(ended.as_json()))))


@given(
    fields=st.dictionaries(
        st.sampled_from(NUMBERS), EDGES | st.integers(0, (1 << 64) - 1), min_size=1, max_size=4
    )
)
def test_segments_with_other_numbers(whole: bytes, fields: dict[str, int]) -> None:
    data = bytearray(whole)
    with ffi.from_buffer("segment_header *", data) as head:
        for name, value in fields.items():
            most = (1 << (8 * ffi.sizeof(dict(ffi.typeof("segment_header").fields)[name].type))) - 1
            setattr(head, name, min(value, most))
    check_segment(bytes(data))


@given(
    changes=st.lists(st.tuples(st.integers(0, 1 << 14), st.binary(min_size=1, max_size=300))),
    size=st.none() | st.integers(0, 1 << 21),
)
def test_segments_with_other_bytes(
    whole: bytes, changes: list[tuple[int, bytes]], size: int | None
) -> None:
    data = bytearray(whole)
    for at, some in changes:
        data[at : at + len(some)] = some
    if size is not None:
        data = data[:size].ljust(size, b"\0")
        if size >= HEADER_BYTES:
            with ffi.from_buffer("segment_header *", data) as head:
                head.bytes = size
    check_segment(bytes(data))


@given(
    changes=st.lists(
        st.tuples(st.integers(0, 7), st.integers(0, 31), EDGES | st.integers(0, (1 << 64) - 1)),
        min_size=1,
        max_size=8,
    )
)
def test_segments_with_other_accounts(whole: bytes, changes: list[tuple[int, int, int]]) -> None:
    data = bytearray(whole)
    with ffi.from_buffer("segment_header *", data) as head:
        for slot, word, value in changes:
            at = head.accounts_at + slot * head.account_bytes + 4 * word
            data[at : at + 8] = value.to_bytes(8, "little")
    check_segment(bytes(data))


@given(data=st.binary(max_size=2 * HEADER_BYTES))
def test_any_bytes_are_no_segment(data: bytes) -> None:
    with memoryview(data) as view, pytest.raises(segment.SegmentRefusedError):
        segment.parse(view)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | EDGES
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["cache", "time_to_free", "released", "miss", "trims", "1", "../x"]),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4)
    ),
    max_leaves=8,
)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    found = [path] if path else []
    for key in keys:
        found += places(data[key], (*path, key))
    return found


def at_place(data: Any, path: list[Any]) -> Any:
    for key in path:
        data = data[key]
    return data


NO_COUNTS = st.sampled_from([-1, -(1 << 70), 1 << 64, 1 << 1100])


@pytest.mark.parametrize("numbers_only", [False, True])
@given(chance=st.data())
def test_ledgers_with_other_values(
    directory: Path, whole: bytes, numbers_only: bool, chance: st.DataObject
) -> None:
    service = Service("any")
    with memoryview(whole) as view:
        service.fold(Path("1-1.stats"), segment.parse(view))
    save(directory, service)
    path = ledger_path(directory, "any")
    data = json.loads(path.read_text())
    for _ in range(chance.draw(st.integers(1, 3))):
        found = places(data)
        if numbers_only:
            found = [place for place in found if type(at_place(data, [*place])) is int]
        *above, last = chance.draw(st.sampled_from(found))
        at_place(data, above)[last] = chance.draw(NO_COUNTS if numbers_only else JSON)
    path.write_text(json.dumps(data))
    loaded = load(path)
    if loaded is not None:
        exposed(loaded.take_totals())
        assert all("/" not in name for name in loaded.folded)


@given(data=st.binary(max_size=400) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_file_is_no_ledger(directory: Path, data: bytes) -> None:
    path = ledger_path(directory, "any")
    path.write_bytes(data)
    assert load(path) is None


@given(pid=st.integers(0, (1 << 64) - 1))
def test_any_number_of_a_process_can_be_looked_up(pid: int) -> None:
    found = running(pid)
    assert found is None or 0 < pid < 1 << 31


def test_this_process_runs() -> None:
    with ffi.from_buffer("segment_header *", bytearray(own_path().read_bytes())) as head:
        assert running(os.getpid()) == (head.start_ticks, head.stack_start)


def test_a_name_is_cut_where_the_segment_ends_it(whole: bytes) -> None:
    data = bytearray(whole)
    with ffi.from_buffer("segment_header *", data) as head:
        head.service = b"\xff" * lib.VRANGE_NAME_BYTES
    with memoryview(data) as view:
        found = segment.parse(view)
    assert found.service == "\N{REPLACEMENT CHARACTER}" * lib.VRANGE_NAME_BYTES
    assert ledger_path(Path("/"), found.service).name.endswith(".ledger")


def test_any_arguments_of_the_command_end_in_words(tmp_path: Path) -> None:
    """Hypothesis runs in a process of its own: argparse ends the process that it refuses."""
    code = """
import contextlib, io, sys
from hypothesis import HealthCheck, given, settings, strategies as st
from vrange.cli import main
words = st.sampled_from(
    ["top", "doctor", "export", "run", "demo", "--once", "--interval", "--json", "--port", "-1",
     "--addr", "0", "nan", "inf", "1e400", "99999999999999999999", "--", "-", "-c", "-m", "--trim",
     "--trim-every", "--metrics", "--deep", "--stack", "--report", "--heap", "--help", "--version",
     "@x", "\\x1b[2J", "\\udcff", "\\0", ""]
) | st.text(max_size=8)
@settings(max_examples=150, deadline=None, database=None,
          suppress_health_check=list(HealthCheck))
@given(st.lists(words, max_size=5))
def any_words(argv):
    if argv and argv[0] in ("demo", "export", "run", "top"):
        argv = [argv[0], *argv[1:], "--no-such-option"]  # they would run on
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(argv)
        except SystemExit as end:
            status = end.code
    assert status in (0, 1, 2, 126, 127), (argv, status)
    assert "Traceback" not in err.getvalue()
any_words()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
