"""Clusters of real processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from distributed import Client, LocalCluster


@pytest.fixture(scope="module", autouse=True)
def without_what_nannies_set() -> Iterator[None]:
    """A nanny leaves what its workers need before they start in this process's environment."""
    before = set(os.environ)
    yield
    for name in os.environ.keys() - before:
        del os.environ[name]


@pytest.fixture(autouse=True)
def silent_while_it_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker in the program's own process tells at level INFO, with a traceback, that its
    scheduler closed first. One program in twelve does, without vrange, too.
    """
    monkeypatch.setenv("DASK_LOGGING__DISTRIBUTED", "warning")


@pytest.fixture(scope="module")
def start_cluster(
    without_what_nannies_set: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Client]]:
    """Start a cluster with these options, for the tests of one file. Return its client."""
    with ExitStack() as stack:

        def start(**options: Any) -> Client:
            cluster = LocalCluster(
                threads_per_worker=2,
                dashboard_address=":0",
                local_directory=str(tmp_path_factory.mktemp("dask")),
                **options,
            )
            stack.enter_context(cluster)
            client: Client = stack.enter_context(Client(cluster))
            return client

        yield start
