"""Several processes against a plain dict: what is found is what was stored last, or nothing."""

from __future__ import annotations

import uuid
from typing import Any

import hypothesis.strategies as st
import shared_peers as peers
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from shared_peers import Peer

import vrange

keys = st.sampled_from([0, 1, 2.5, "a", ("b", 1), None])
values = st.sampled_from([0, "x", [1, 2], b"y" * 6000, ["z" * 9000, 1], ("w",) * 3])
who = st.integers(0, 2)


class SharedMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        name = f"machine-{uuid.uuid4().hex[:12]}"
        self.cache = vrange.VolatileCache[Any, Any](shared=name)
        self.peers = [Peer(name, "fork"), Peer(name, "fork")]
        self.model: dict[Any, Any] = {}
        self.absent = self.found = 0

    def ask(self, process: int, function: Any, *args: Any) -> Any:
        if process == 2:
            return function(self.cache, *args)
        return self.peers[process].ask(function, *args)

    @rule(process=who, key=keys, value=values)
    def put(self, process: int, key: Any, value: Any) -> None:
        self.ask(process, peers.put, key, value)
        self.model[key] = value

    @rule(process=who, key=keys)
    def get(self, process: int, key: Any) -> None:
        self.check(key, self.ask(process, peers.get, key))

    @rule(process=who, key=keys)
    def delete(self, process: int, key: Any) -> None:
        if self.ask(process, peers.delete, key):
            assert key in self.model
        self.model.pop(key, None)

    @rule(process=who, key=keys)
    def pop(self, process: int, key: Any) -> None:
        self.check(key, self.ask(process, peers.pop, key))
        self.model.pop(key, None)

    @rule(process=who, key=keys, value=values)
    def compute(self, process: int, key: Any, value: Any) -> None:
        found = self.ask(process, peers.compute, key, value)
        if found == value:
            self.model[key] = value
        else:
            assert found == self.model[key]

    @rule(process=who)
    def clear(self, process: int) -> None:
        self.ask(process, peers.clear)
        self.model.clear()

    @rule(process=who)
    def discard(self, process: int) -> None:
        self.ask(process, peers.discard)

    @rule(process=who)
    def list(self, process: int) -> None:
        assert set(self.ask(process, peers.keys)) <= set(self.model)

    def check(self, key: Any, found: Any) -> None:
        if found == "absent":
            self.absent += 1
        else:
            assert key in self.model
            assert found == self.model[key]
            self.found += 1

    @invariant()
    def small_values_stay(self) -> None:
        if not hasattr(self, "model"):
            return
        for key, value in self.model.items():
            if not isinstance(value, bytes) and value != ["z" * 9000, 1]:
                assert self.cache.get(key, "absent") == value

    def teardown(self) -> None:
        for peer in getattr(self, "peers", ()):
            peer.end()
        if hasattr(self, "cache"):
            self.cache.close()


TestSharedMachine = SharedMachine.TestCase
TestSharedMachine.settings = settings(max_examples=6, stateful_step_count=30, deadline=None)
