"""The collector: names, values, where it is served, and what is refused."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import socket
import urllib.request
import warnings
from collections.abc import Iterator
from typing import Any

import prometheus_client
import pytest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import vrange
from vrange import metrics
from vrange._counters import processes

NAMES = {
    "vrange_time_to_free_seconds": ("histogram", {"kind", "stage"}),
    "vrange_time_to_reallocate_seconds": ("histogram", {"kind", "outcome"}),
    "vrange_regenerate_seconds": ("histogram", {"name"}),
    "vrange_refaults": ("counter", set()),
    "vrange_purged_bytes": ("counter", set()),
    "vrange_cache_requests": ("counter", {"name", "outcome"}),
    "vrange_cache_refused": ("counter", {"name"}),
    "vrange_stack_returned_bytes": ("counter", set()),
    "vrange_trims": ("counter", set()),
    "vrange_bytes": ("gauge", {"name", "state"}),
    "vrange_process_lazyfree_bytes": ("gauge", set()),
    "vrange_info": ("gauge", {"rung", "kernel"}),
}


Registry = prometheus_client.CollectorRegistry
Used = vrange.VolatileCache[str, bytes]


@pytest.fixture
def registry() -> Registry:
    gc.collect()  # caches that earlier tests have left take the places of names, which are bounded
    return prometheus_client.CollectorRegistry()


numbers = itertools.count()


@pytest.fixture
def used() -> Iterator[Used]:
    with Used(name=f"in metrics {next(numbers)}", hot_bytes=0) as cache:
        cache.get_or_compute("a", lambda: b"x" * 50_000)
        cache["a"]
        cache.discard("a")
        cache.get_or_compute("a", lambda: b"x" * 50_000)
        yield cache


def value(registry: prometheus_client.CollectorRegistry, sample: str, /, **labels: str) -> float:
    found = registry.get_sample_value(sample, labels)
    assert found is not None, (sample, labels)
    return found


def test_every_metric_of_the_contract_in_text_and_openmetrics(
    registry: Registry, used: Used
) -> None:
    metrics.register(registry)
    text = prometheus_client.generate_latest(registry).decode()
    families = {family.name: family for family in parse_text(text)}
    for name, (kind, labels) in NAMES.items():
        family = families[name]
        assert family.type == kind, name
        assert family.documentation.endswith("."), name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels, name
    # prometheus_client does not annotate these two.
    strict = openmetrics.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    families = parse_openmetrics(strict)  # type: ignore[no-untyped-call]
    by_name = {family.name: family for family in families}
    for name, family in by_name.items():
        if name.endswith(("_seconds", "_bytes")):
            assert family.unit == name.rsplit("_", 1)[1], name


def test_values_are_those_of_the_process(registry: Registry, used: Used) -> None:
    metrics.register(registry)
    info = used.info()
    for outcome, told in {
        "hot": info.hot_hits,
        "resident": info.resident_hits,
        "purged": info.purged,
        "miss": info.misses,
    }.items():
        labels = {"name": used.name, "outcome": outcome}
        assert value(registry, "vrange_cache_requests_total", **labels) == told
    count = value(registry, "vrange_regenerate_seconds_count", name=used.name)
    assert count == info.regenerated == 2
    now = vrange.stats()
    for stage in ("released", "offered"):
        times = now.time_to_free["cache", stage]
        labels = {"kind": "cache", "stage": stage}
        if times.count:
            assert value(registry, "vrange_time_to_free_seconds_count", **labels) >= times.count
            last = registry.get_sample_value(
                "vrange_time_to_free_seconds_bucket", {**labels, "le": "+Inf"}
            )
            assert last is not None
            assert last >= times.count
    assert value(
        registry, "vrange_info", rung=vrange.capabilities().rung, kernel=os.uname().release
    )


def test_what_is_told_of_a_histogram_is_exact(registry: Registry) -> None:
    from vrange._core import lib

    metrics.register(registry)
    labels = {"kind": "heap", "outcome": "purged"}
    name = "vrange_time_to_reallocate_seconds_bucket"

    def below(le: str) -> float:
        return registry.get_sample_value(name, {**labels, "le": le}) or 0

    before = {le: below(le) for le in ("1.024e-06", "2.048e-06", "+Inf")}
    for nanoseconds in (1023, 1024, 2047, 2048):
        lib.vrange_latency_record(lib.VRANGE_KIND_HEAP, lib.VRANGE_REALLOCATE_PURGED, nanoseconds)
    grown = {le: below(le) - was for le, was in before.items()}
    assert grown == {"1.024e-06": 1, "2.048e-06": 3, "+Inf": 4}


def test_nothing_is_described() -> None:
    assert list(metrics.Collector().describe()) == []


def test_registered_twice(registry: Registry) -> None:
    first = metrics.register(registry)
    with pytest.raises(ValueError, match=r"has .*Collector.* already"):
        metrics.register(registry)
    registry.unregister(first)
    metrics.register(registry)
    metrics.register(prometheus_client.CollectorRegistry())
    with pytest.raises(TypeError, match="must be a CollectorRegistry"):
        metrics.register("registry")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='"self" or "group"'):
        metrics.register(prometheus_client.CollectorRegistry(), processes="all")  # type: ignore[arg-type]


def test_serve_and_a_port_that_is_taken(registry: Registry, used: Used) -> None:
    with metrics.serve(0, registry=registry) as server:
        url = f"http://127.0.0.1:{server.port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert b'vrange_bytes{name="in metrics ' in answer.read()
        with pytest.raises(OSError, match=f"port {server.port}: the port is already in use"):
            metrics.serve(server.port, registry=registry)
        port = server.port
    with metrics.serve(port, registry=registry):
        pass  # closed means free again
    for wrong in (-1, 65536):
        with pytest.raises(ValueError, match="port must be 0 to 65535"):
            metrics.serve(wrong)
    with pytest.raises(TypeError, match="port must be an int"):
        metrics.serve("9000")  # type: ignore[arg-type]


def test_in_wsgi_and_asgi_apps(registry: Registry, used: Used) -> None:
    """Those are prometheus_client's; the collector is one of its own kind."""
    metrics.register(registry)
    wanted = f'vrange_cache_requests_total{{name="{used.name}",outcome="purged"}} 1.0'.encode()
    status: list[str] = []
    environ = {"PATH_INFO": "/", "QUERY_STRING": "", "REQUEST_METHOD": "GET"}
    body = prometheus_client.make_wsgi_app(registry)(environ, lambda s, _: status.append(s))
    assert status == ["200 OK"]
    assert wanted in b"".join(body)

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    asyncio.run(prometheus_client.make_asgi_app(registry)(scope, receive, send))
    assert sent[0]["status"] == 200
    assert wanted in sent[1]["body"]


def test_listens_on_this_machine_only_unless_told(registry: Registry) -> None:
    with metrics.serve(0, registry=registry) as server, socket.socket() as other:
        # The port is free on another address of the loopback network.
        other.bind(("127.0.0.2", server.port))


def test_names_that_would_break_a_label() -> None:
    for name in ("", "a\nb", "x" * 64):
        with pytest.raises(ValueError, match="name must be"):
            vrange.VolatileCache(name=name)


@pytest.mark.parametrize("name", ['quote"d', "back\\slash", "{brace}", "ümläut", "with space"])
def test_names_that_need_escaping(registry: Registry, name: str) -> None:
    metrics.register(registry)
    with vrange.VolatileCache[int, int](name=name) as cache:
        cache.get_or_compute(1, lambda: 1)
        text = prometheus_client.generate_latest(registry).decode()
    told = [
        sample.value
        for family in parse_text(text)
        for sample in family.samples
        if sample.name == "vrange_cache_requests_total"
        and sample.labels == {"name": name, "outcome": "miss"}
    ]
    assert len(told) == 1
    assert told[0] >= 1


def test_no_warning_where_all_is_well(registry: Registry) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.register(registry, processes="group")
        prometheus_client.generate_latest(registry)
    assert processes.living()
