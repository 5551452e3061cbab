"""Flask-Caching: views, memoized functions, and the generic tests of its backends, by kind."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import flask
import flask_caching
import numpy as np
import pytest
from support import wait_until

import vrange
from vrange.integrations.flask import VolatileCache


@pytest.fixture
def c() -> VolatileCache:
    return VolatileCache()


def app_with(**config: Any) -> tuple[flask.Flask, flask_caching.Cache]:
    app = flask.Flask(__name__)
    app.config.update(CACHE_TYPE="vrange.integrations.flask.VolatileCache", **config)
    return app, flask_caching.Cache(app)


def test_values(c: VolatileCache) -> None:
    for value in ("bar", b"bar", 5, True, ["bar"], None, np.arange(3)):
        assert c.set("foo", value)
        np.testing.assert_equal(c.get("foo"), value)
        assert c.has("foo")


def test_many(c: VolatileCache) -> None:
    assert c.set_many({"foo": "bar", "spam": ["eggs"]}) == ["foo", "spam"]
    assert c.get_many("foo", "spam", "none") == ["bar", ["eggs"], None]
    assert c.get_dict("foo", "spam") == {"foo": "bar", "spam": ["eggs"]}
    assert c.delete_many("foo", "spam") == ["foo", "spam"]
    assert not c.has("foo")


def test_add_delete_clear(c: VolatileCache) -> None:
    assert c.add("foo", "bar")
    assert not c.add("foo", "qux")
    assert c.get("foo") == "bar"
    assert c.delete("foo")
    assert not c.delete("foo")
    c.set("foo", 1)
    assert c.clear()
    assert c.get("foo") is None


def test_counting(c: VolatileCache) -> None:
    assert c.inc("n") == 1
    assert c.inc("n", 4) == c.get("n") == 5
    assert c.dec("n", 2) == 3
    assert c.dec("m") == -1


def test_timeouts(c: VolatileCache) -> None:
    c.set("for ever", "bar", 0)
    c.set("soon", "qux", 0.1)  # type: ignore[arg-type]
    assert c.get("soon") == "qux"
    wait_until(lambda: c.get("soon") is None, "it expires")
    assert c.get("for ever") == "bar"
    c.set("delta", "x", timedelta(days=1))
    assert c.get("delta") == "x"
    c.set("past", "x", -1)
    assert c.get("past") is None


def test_what_can_not_be_kept(c: VolatileCache) -> None:
    with pytest.warns(vrange.NotKeptWarning):
        assert c.set("a", lambda: None) is False
    assert c.get("a") is None


def test_views_and_functions_of_an_app() -> None:
    app, cache = app_with(CACHE_OPTIONS={"name": "flask-app", "max_bytes": "64MiB"})
    calls: list[str] = []

    @app.route("/page")
    @cache.cached(timeout=60)
    def page() -> str:
        calls.append("page")
        return f"rendered {len(calls)}"

    @cache.memoize(60)
    def rows(number: int) -> list[int]:
        calls.append(f"rows {number}")
        return [number]

    client = app.test_client()
    assert client.get("/page").data == client.get("/page").data == b"rendered 1"
    with app.app_context():
        assert rows(1) == rows(1) == [1]
        rows(1).append(5)
        assert rows(1) == [1]
        assert rows(2) == [2]
        assert calls == ["page", "rows 1", "rows 2"]
        cache.delete_memoized(rows, 1)
        assert rows(1) == [1]
        cache.clear()
        assert rows(2) == [2]
        assert calls == ["page", "rows 1", "rows 2", "rows 1", "rows 2"]
    assert "flask-app" in {account.name for account in vrange.stats().accounts}


def test_apps_do_not_share() -> None:
    (first, one), (second, two) = app_with(), app_with()
    with first.app_context():
        one.set("a", 1)
    with second.app_context():
        assert two.get("a") is None


def test_a_bad_option_of_an_app_is_refused() -> None:
    with pytest.raises(TypeError, match="typo"):
        app_with(CACHE_OPTIONS={"typo": 1})


def test_threads_count(c: VolatileCache) -> None:
    def count() -> None:
        for _ in range(300):
            c.inc("n")

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert c.get("n") == 900
