"""The workers of a cluster as each other's caches: asking where a value is, and getting it."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from distributed.protocol.serialize import to_serialize
from distributed.utils import sync

from vrange.dask.directory import Answer, Directory, home_of

__all__ = ["Call", "Peers", "join", "peers_of"]

_LOG = logging.getLogger("vrange.dask")
_WORKERS_SECONDS = 2.0  # how old the list of live workers may be
_PATIENCE_SECONDS = 5.0  # a home answers within this time, if only "ask again"
_LOST_SECONDS = 30.0  # without an answer after this time, a peer is given up
_STORED_SECONDS = (0.0, 0.001, 0.005, 0.02, 0.1, 0.5)  # when to look whether a value was kept

_peers: weakref.WeakKeyDictionary[Any, Peers] = weakref.WeakKeyDictionary()


def join(worker: Any) -> Peers:
    """Let a worker answer its peers. A second call returns the same."""
    known = _peers.get(worker)
    if known is None:
        known = _peers[worker] = Peers(worker)
    return known


def peers_of(worker: Any) -> Peers | None:
    """Return the peers of a worker that has joined."""
    return _peers.get(worker)


class Call:
    """One call of a cached function, as peers know it.

    Parameters
    ----------
    function : str
        The function's name among all workers.
    key : str
        The name of the call: of the function and its arguments.
    arguments : tuple
        The positional and keyword arguments, with which a peer looks the value up.

    """

    def __init__(
        self, function: str, key: str, arguments: tuple[tuple[Any, ...], dict[str, Any]]
    ) -> None:
        self.function = function
        self.key = key
        self.arguments = arguments


class Peers:
    """One worker's view of the others.

    `get` runs on threads of tasks; everything else on the worker's event loop.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = weakref.proxy(worker)
        self._directory = Directory()
        self._live: tuple[float, frozenset[str]] = (-_WORKERS_SECONDS, frozenset())
        self._lookups: dict[str, Callable[..., tuple[bool, Any]]] = {}
        worker.handlers["vrange_ask"] = self._on_ask
        worker.handlers["vrange_computed"] = self._on_computed
        worker.handlers["vrange_lost"] = self._on_lost
        worker.handlers["vrange_value"] = self._on_value

    # ---- on a task's thread ----------------------------------------------------------------------

    def get(
        self, call: Call, lookup: Callable[..., tuple[bool, Any]], compute: Callable[[], Any]
    ) -> Any:
        """Return the value that a peer has, or compute it.

        Parameters
        ----------
        call : Call
            The call.
        lookup : callable
            With the call's arguments, it returns whether this process has the value, and the value.
        compute : callable
            Computes it.

        Notes
        -----
        Only one worker computes a value at a time. A peer that does not answer is given up, and the
        value is computed here: the cluster can make a call faster, and never make it fail.

        """
        self._lookups[call.function] = lookup
        try:
            found, value = self._sync(self._get, call)
        except Exception:
            _LOG.debug("Peers can't be asked for %s", call.function, exc_info=True)
            return compute()
        if not found:
            value = compute_or_tell(compute, lambda: self._later(self._failed, call))
        self._later(self._tell_when_kept, call)
        return value

    def _sync(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return sync(self._worker.loop, function, *arguments, callback_timeout=None)

    def _later(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._worker.loop.add_callback(function, *arguments)

    # ---- asking ----------------------------------------------------------------------------------

    async def _get(self, call: Call) -> tuple[bool, Any]:
        while True:
            answer = await self._ask(call.key)
            if answer.compute:
                return False, None
            if answer.holder is not None:
                found, value = await self._fetch(answer.holder, call)
                if found:
                    return True, value
                await self._tell(call.key, "lost", worker=answer.holder)

    async def _ask(self, key: str) -> Answer:
        home = home_of(key, await self._workers())
        if home == self._worker.address:
            return await self._answer(key, self._worker.address)
        question = self._worker.rpc(home).vrange_ask(key=key, asker=self._worker.address)
        return Answer(**await asyncio.wait_for(question, _LOST_SECONDS))

    async def _fetch(self, holder: str, call: Call) -> tuple[bool, Any]:
        question = self._worker.rpc(holder).vrange_value(
            function=call.function, arguments=to_serialize(call.arguments)
        )
        try:
            answer = await asyncio.wait_for(question, _LOST_SECONDS)
        except (OSError, TimeoutError):
            return False, None
        return answer["found"], answer.get("value")

    async def _tell(self, key: str, what: str, **details: Any) -> None:
        home = home_of(key, await self._workers())
        if home == self._worker.address:
            getattr(self._directory, what)(key, **details)
        else:
            told = getattr(self._worker.rpc(home), f"vrange_{what}")(key=key, **details)
            await asyncio.wait_for(told, _LOST_SECONDS)

    async def _failed(self, call: Call) -> None:
        await self._tell_computed(call.key, has_value=False)

    async def _tell_when_kept(self, call: Call) -> None:
        """Wait until the caller has stored the value, or until it seems that it can't be kept."""
        for seconds in _STORED_SECONDS:
            await asyncio.sleep(seconds)
            if self._look_up(call.function, call.arguments)[0]:
                await self._tell_computed(call.key, has_value=True)
                return
        await self._tell_computed(call.key, has_value=False)

    async def _tell_computed(self, key: str, *, has_value: bool) -> None:
        try:
            await self._tell(key, "computed", worker=self._worker.address, has_value=has_value)
        except (OSError, TimeoutError):
            _LOG.debug("The home of %s is gone", key, exc_info=True)

    async def _workers(self) -> frozenset[str]:
        when, workers = self._live
        if time.monotonic() - when > _WORKERS_SECONDS:
            answer = self._worker.scheduler.ncores()
            workers = frozenset(await asyncio.wait_for(answer, _LOST_SECONDS))
            self._live = time.monotonic(), workers
        return workers | {self._worker.address}

    # ---- answering -------------------------------------------------------------------------------

    async def _answer(self, key: str, asker: str) -> Answer:
        workers = await self._workers()
        return await self._directory.ask(
            key, asker, workers=workers | {asker}, patience=_PATIENCE_SECONDS
        )

    async def _on_ask(self, key: str, asker: str) -> dict[str, Any]:
        return asdict(await self._answer(key, asker))

    def _on_computed(self, key: str, worker: str, has_value: bool) -> None:
        self._directory.computed(key, worker, has_value=has_value)

    def _on_lost(self, key: str, worker: str) -> None:
        self._directory.lost(key, worker)

    def _on_value(self, function: str, arguments: Any) -> dict[str, Any]:
        found, value = self._look_up(function, arguments)
        return {"found": True, "value": to_serialize(value)} if found else {"found": False}

    def _look_up(self, function: str, arguments: Any) -> tuple[bool, Any]:
        lookup = self._lookups.get(function)
        if lookup is None:
            return False, None
        args, kwargs = arguments
        return lookup(*args, **kwargs)


def compute_or_tell(compute: Callable[[], Any], failed: Callable[[], None]) -> Any:
    """Return what `compute` returns; if it raises, call `failed` first."""
    try:
        return compute()
    except BaseException:
        failed()
        raise
