"""Metrics over HTTP, beside clients that are slow, silent or rude."""

from __future__ import annotations

import os
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import prometheus_client
import pytest

import vrange.metrics
from vrange._counters import http


@pytest.fixture
def port() -> Iterator[int]:
    with vrange.metrics.serve(0, registry=prometheus_client.CollectorRegistry()) as server:
        yield server.port


def scrape(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        content: bytes = answer.read()
    return content


def connect(port: int, sent: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(sent)
    return client


def ended(client: socket.socket) -> bool:
    """Whether the server ends the connection, within the client's timeout."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_slow_clients_hold_no_thread_each(port: int) -> None:
    before = threading.active_count()
    slow = [connect(port, b"GET /metrics HTTP/1.1\r\nX-a: ") for _ in range(200)]
    try:
        assert b"vrange_info" in scrape(port)
        assert all(ended(client) for client in slow[:100])
        deadline = time.monotonic() + 30
        while threading.active_count() > before + http._CONNECTIONS_MOST:
            assert time.monotonic() < deadline, "each of them holds a thread"
            time.sleep(0.01)
        assert b"vrange_info" in scrape(port)
    finally:
        for client in slow:
            client.close()


def test_a_silent_client_is_dropped(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http._Handler, "timeout", 0.1)
    with connect(port, b"GET /metrics") as silent:
        assert ended(silent)


@pytest.mark.parametrize(
    "rude",
    [
        b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"X-a: b\r\n" * 10_000,
        os.urandom(100_000),
        b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 100_000,
    ],
    ids=["long line", "many headers", "noise", "huge body"],
)
def test_a_rude_client_disturbs_no_scrape(port: int, rude: bytes) -> None:
    with suppress(OSError), connect(port, rude):
        assert b"vrange_info" in scrape(port)
    assert b"vrange_info" in scrape(port)


def test_clients_that_are_dropped_print_nothing(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server answers a part of a request that it can't read, to a client that is gone."""
    before = threading.active_count()
    for client in [connect(port, b"G") for _ in range(3 * http._CONNECTIONS_MOST)]:
        client.close()
    deadline = time.monotonic() + 30
    while threading.active_count() > before:
        assert time.monotonic() < deadline, "a client holds its thread"
        time.sleep(0.01)
    assert b"vrange_info" in scrape(port)
    assert capfd.readouterr().err == ""


def test_an_address_of_ipv6() -> None:
    registry = prometheus_client.CollectorRegistry()
    try:
        server = vrange.metrics.serve(0, "::1", registry=registry)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with server:
        url = f"http://[::1]:{server.port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert b"vrange_info" in answer.read()
