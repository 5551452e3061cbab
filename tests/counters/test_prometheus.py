"""With a real Prometheus: what it stored of the example service, under uvicorn and gunicorn.

One server scrapes all services of this file, for half a minute, with rules evaluated as it goes.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from dashboards.panels import DASHBOARDS, Dashboard, Query
from examples.thumbnails.running import (
    INSTALL,
    RULES,
    Load,
    Prometheus,
    Service,
    fetch,
    free_port,
)

import vrange

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason=INSTALL)

STACKS = hasattr(vrange, "deep_call")
# Churn: discards without end, and deep calls where this build has them.
CHURN = """
import os, sys, time
import vrange
cache = vrange.VolatileCache(name="churn", hot_bytes=0)
server = vrange.metrics.serve(int(sys.argv[1]))
watcher = vrange.pressure.watch()
print("ready", flush=True)
def down(n): return n and 1 + max(map(down, (n - 1,)))
while True:
    for key in range(20):
        cache.get_or_compute(key, lambda: os.urandom(20_000))
    cache.discard()
    if hasattr(vrange, "deep_call"):
        vrange.deep_call(down, 2000, stack="64MiB")
    time.sleep(0.002)
"""


class Everything:
    """The services, and the server that watches them."""

    uvicorn: Service
    gunicorn: Service
    prometheus: Prometheus
    churn: str
    began: float
    seen: float  # when all of what happened until then was stored: what is asked, is asked of then


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everything]:
    directory = tmp_path_factory.mktemp("prometheus")
    directory.chmod(0o700)
    environment = {"VRANGE_RUNTIME_DIR": str(directory)}
    made = Everything()
    with ExitStack() as stack:
        churn_port = free_port()
        churn = subprocess.Popen(
            [sys.executable, "-c", CHURN, str(churn_port)],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(churn.communicate)
        stack.callback(churn.kill)
        assert churn.stdout is not None
        assert churn.stdout.readline() == "ready\n"
        made.churn = f"127.0.0.1:{churn_port}"
        made.uvicorn = stack.enter_context(
            Service("uvicorn", free_port(), directory, **environment)
        )
        made.gunicorn = stack.enter_context(
            Service("gunicorn", free_port(), directory, **environment)
        )
        targets = [made.uvicorn.target, made.gunicorn.target, made.churn]
        made.prometheus = stack.enter_context(Prometheus(targets, directory, interval="500ms"))
        made.began = time.time()
        services = (made.uvicorn, made.gunicorn)
        with ExitStack() as loading:  # a load that is not closed would keep pytest from ending
            loads = [
                loading.enter_context(Load(service, threads=1, pause=0.005)) for service in services
            ]
            deadline = time.monotonic() + 60
            discards = 0
            while discards < 5 or any(load.asked <= 20 for load in loads):
                assert time.monotonic() < deadline, [load.asked for load in loads]
                time.sleep(1)
                for service in services:
                    service.discard()
                discards += 1
        for load in loads:
            assert load.failed == []
        made.seen = when_all_is_stored(made.prometheus)
        yield made


def when_all_is_stored(prometheus: Prometheus) -> float:
    """Once every target was scraped after now, and every rule evaluated after that."""
    begun = time.time()

    def wait_until(true: Callable[[], bool], why: str) -> None:
        while not true():
            assert time.time() < begun + 30, why
            time.sleep(0.1)

    def all_scraped() -> bool:
        ups = prometheus.query("up and timestamp(up) > " + str(begun))
        return len(ups) == 3 and all(one["value"][1] == "1" for one in ups)

    def all_evaluated() -> bool:
        groups = prometheus.ask("rules")["groups"]
        times = [datetime.fromisoformat(group["lastEvaluation"]) for group in groups]
        return all(time.timestamp() > scraped for time in times)

    wait_until(all_scraped, "it does not scrape")
    scraped = time.time()
    wait_until(all_evaluated, "it does not evaluate its rules")
    return time.time()


def latest(prometheus: Prometheus, expression: str) -> float:
    """The newest value. There is none after a scrape that took longer than its interval."""
    deadline = time.monotonic() + 30
    while not (series := prometheus.query(expression)):
        assert time.monotonic() < deadline, f"no scrape succeeds: {expression}"
        time.sleep(0.1)
    return float(series[0]["value"][1])


def settled(everything: Everything, target: str, expression: str, want: float) -> float:
    """The value of an expression at a target, once it is `want`; else what it was at last."""
    deadline = time.monotonic() + 30
    while True:
        series = everything.prometheus.query(expression.replace("TARGET", target))
        value = float(series[0]["value"][1]) if series else math.nan
        if value == want or time.monotonic() > deadline:
            return value
        time.sleep(0.2)


# ---- every expression ---------------------------------------------------------------------------


def filled_in(expression: str) -> str:
    """As Grafana would send it, with all of everything chosen."""
    for variable in ("$job", "$instance", "$name"):
        expression = expression.replace(variable, ".*")
    return expression.replace("$__rate_interval", "30s")


QUERIES = [
    (shown, panel, query)
    for shown in DASHBOARDS
    for panel in shown.panels
    for query in panel.queries
]


@pytest.mark.parametrize(
    ("shown", "panel", "query"),
    QUERIES,
    ids=[f"{s.uid}:{p.title}:{q.legend}" for s, p, q in QUERIES],
)
def test_every_expression_of_every_panel(
    everything: Everything, shown: Dashboard, panel: Any, query: Query
) -> None:
    always = ("vrange_stack_returned_bytes_total", "vrange_trims_total")
    if (
        shown.uid == "vrange-stacks"
        and not STACKS
        and not any(metric in query.expression for metric in always)
    ):
        pytest.skip("this build has no deep stacks")
    series = everything.prometheus.query(filled_in(query.expression), everything.seen)
    assert series, "no data"
    values = [float(one["value"][1]) for one in series]
    finite = [value for value in values if not math.isnan(value)]
    assert finite, "nothing but NaN"
    assert all(value >= 0 for value in finite)
    if panel.unit == "percentunit":
        assert all(value <= 1.0001 for value in finite)
    labels = re.findall(r"{{(\w+)}}", query.legend)
    for one in series:
        assert all(label in one["metric"] for label in labels), one["metric"]
    if panel.draw == "heatmap":
        assert len(series) > 5
        assert any(one["metric"]["le"] == "+Inf" for one in series)
        # Of the counters: rate() extrapolates each young series to where it would have been zero,
        # so that of two buckets the wider one may get the lower rate.
        counters = re.sub(r"(?:rate|increase)\((.+?)\[30s\]\)", r"\1", filled_in(query.expression))
        assert counters != filled_in(query.expression)
        counted = everything.prometheus.query(counters, everything.seen)
        by_bound = sorted((float(one["metric"]["le"]), float(one["value"][1])) for one in counted)
        counts = [count for _, count in by_bound]
        assert counts[-1] > 0
        assert all(low <= high for low, high in itertools.pairwise(counts))
    if panel.unit == "s" and panel.draw != "heatmap":
        assert all(0 < value < 60 for value in finite)


def rules(everything: Everything) -> list[dict[str, Any]]:
    return [
        rule for group in everything.prometheus.ask("rules")["groups"] for rule in group["rules"]
    ]


def test_every_rule_is_evaluated_and_gives_data(everything: Everything) -> None:
    found = rules(everything)
    assert len(found) == RULES.read_text().count("expr:")
    for rule in found:
        assert rule["health"] == "ok", rule
        if rule["type"] == "recording":
            assert everything.prometheus.query(rule["name"], everything.seen), rule["name"]
            continue
        if "stack" in rule["query"] and not STACKS:
            continue
        # An alert that doesn't fire gives nothing; with `bool` its comparison gives 0 instead.
        compared = re.sub(r" > ", " > bool ", rule["query"])
        series = everything.prometheus.query(compared, everything.seen)
        assert series, compared
        assert {one["value"][1] for one in series} <= {"0", "1"}, compared
        assert all({"job", "instance"} <= set(one["metric"]) for one in series), compared


def test_what_prometheus_says_of_the_metrics_themselves(everything: Everything) -> None:
    found = everything.prometheus.ask("metadata")
    types = {
        "vrange_time_to_free_seconds": "histogram",
        "vrange_time_to_reallocate_seconds": "histogram",
        "vrange_regenerate_seconds": "histogram",
        "vrange_bytes": "gauge",
        "vrange_process_lazyfree_bytes": "gauge",
    }
    for name, kind in types.items():
        assert {told["type"] for told in found[name]} == {kind}
        assert all(told["help"] for told in found[name])


def test_promtool_finds_nothing_wrong_with_the_exposition(everything: Everything) -> None:
    for service in (everything.uvicorn, everything.gunicorn):
        text = fetch(f"{service.url}/metrics")
        ours = [line for line in text.splitlines(keepends=True) if b"vrange_" in line]
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=b"".join(ours),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, b"")


# ---- the values ---------------------------------------------------------------------------------


def test_values_are_what_the_process_itself_says(everything: Everything) -> None:
    told = json.loads(fetch(f"{everything.uvicorn.url}/info"))
    target = everything.uvicorn.target
    for name, info in told["caches"].items():
        for outcome, count in {
            "hot": info["hot_hits"],
            "resident": info["resident_hits"],
            "purged": info["purged"],
            "miss": info["misses"],
        }.items():
            selector = f'instance="TARGET",name="{name}",outcome="{outcome}"'
            expression = f"vrange_cache_requests_total{{{selector}}}"
            assert settled(everything, target, expression, count) == count
        expression = f'vrange_regenerate_seconds_count{{instance="TARGET",name="{name}"}}'
        assert settled(everything, target, expression, info["regenerated"]) == info["regenerated"]
        assert info["regenerated"] > 0
    refaults = told["refaults"]
    assert (
        settled(everything, target, 'vrange_refaults_total{instance="TARGET"}', refaults)
        == refaults
    )
    purged = sum(info["purged_total_bytes"] for info in told["caches"].values())
    assert (
        settled(everything, target, 'vrange_purged_bytes_total{instance="TARGET"}', purged)
        >= purged
    )
    assert purged > 0


def assert_never_fell(everything: Everything, target: str) -> None:
    """No sample of a counter of this target that Prometheus stored is below the one before."""
    span = int(time.time() - everything.began) + 1
    names = '__name__=~"vrange_.*_(total|count|sum|bucket)"'
    data = everything.prometheus.ask("query", query=f'{{{names},instance="{target}"}}[{span}s]')
    assert len(data["result"]) > 50
    for series in data["result"]:
        values = [float(value) for _, value in series["values"]]
        # A sum of seconds is a sum of floats, which may differ in the last place by the order.
        fell = [(a, b) for a, b in itertools.pairwise(values) if b < a * (1 - 1e-12)]
        assert not fell, series["metric"]


def test_no_counter_went_backwards_while_everything_was_discarded(everything: Everything) -> None:
    for target in (everything.churn, everything.uvicorn.target, everything.gunicorn.target):
        assert_never_fell(everything, target)
    grew = f'increase(vrange_purged_bytes_total{{instance="{everything.churn}"}}[30s])'
    assert latest(everything.prometheus, grew) > 1e6


# ---- four workers -------------------------------------------------------------------------------


def workers(service: Service) -> list[int]:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def total_requests(service: Service) -> float:
    text = fetch(f"{service.url}/metrics").decode()
    found = re.findall(r"^vrange_cache_requests_total{.*name=\"thumbnails\".*} (\S+)$", text, re.M)
    return sum(map(float, found))


def test_four_workers_add_up(everything: Everything) -> None:
    service = everything.gunicorn
    # Every worker tells of itself; which one answers is up to gunicorn, so by process.
    before = total_requests(service)
    for size in range(100, 140):
        fetch(f"{service.url}/thumbnail/moon/{size}")
    answers = {total_requests(service) for _ in range(12)}
    assert answers == {before + 40}
    from vrange._counters import processes

    directory = service.log.parent
    living = {one.pid: one for one in processes.living([directory])}
    apart = [
        sum(account.requests.values())
        for pid in workers(service)
        for account in living[pid].accounts
        if account.name == "thumbnails"
    ]
    assert len(apart) == 4
    assert sum(apart) == before + 40
    want = before + 40
    expression = 'sum(vrange_cache_requests_total{instance="TARGET",name="thumbnails"})'
    assert settled(everything, service.target, expression, want) == want
    assert settled(everything, service.target, 'vrange_processes{instance="TARGET"}', 4) == 4


def test_a_killed_worker_leaves_nothing_stale(everything: Everything) -> None:
    service = everything.gunicorn
    before = total_requests(service)
    held = 'sum(vrange_bytes{instance="TARGET",state=~"pinned|idle|offered"})'
    held = held.replace("TARGET", service.target)
    all_bytes = latest(everything.prometheus, held)
    victims = workers(service)
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while victim in (now := workers(service)) or len(now) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    # Another four by now: what the first counted is still there, and of their bytes nothing.
    deadline = time.monotonic() + 20
    while True:
        try:
            if len({total_requests(service) for _ in range(8)}) == 1:
                break
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert total_requests(service) == before
    assert settled(everything, service.target, 'vrange_processes{instance="TARGET"}', 4) == 4
    left = settled(everything, service.target, held, 0)
    assert left < all_bytes
    names = {path.name.split("-")[0] for path in service.log.parent.glob("*.stats")}
    assert not names & {str(victim) for victim in victims}
    assert_never_fell(everything, service.target)


# ---- the command --------------------------------------------------------------------------------


def test_the_documented_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.thumbnails", "--seconds", "3"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split("\n\n")[1:]
    assert len(answers) == 11
    for answer in answers:
        title, *values = answer.strip().splitlines()
        if not title.startswith("alerts"):
            assert values, title
