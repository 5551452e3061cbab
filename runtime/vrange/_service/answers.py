"""Answers of a shared cache that are computed if need be, by one caller of all processes."""

from __future__ import annotations

import pickle
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from vrange._cache.waiting import raise_shared
from vrange._core import lib
from vrange._service.flights import Flight
from vrange._service.known import Known
from vrange._service.values import ABSENT, SharedValues

__all__ = ["Answers"]


class Answers:
    """Answers of one cache.

    Parameters
    ----------
    values : SharedValues
        Where values are found and stored.
    as_own : callable
        Makes what the caller gets of a value that was just computed.
    timeout : float or None
        How long a caller waits for another one.
    computed : callable
        Called with the nanoseconds that each computation took.

    """

    def __init__(
        self,
        values: SharedValues,
        as_own: Callable[[Any], Any],
        timeout: float | None,
        computed: Callable[[int], object],
    ) -> None:
        self._values, self._as_own = values, as_own
        self._timeout, self._computed = timeout, computed

    def answer(self, known: Known, compute: Callable[[], Any]) -> Any:
        """Return the value of a key, or compute and store it."""
        value = self._values.look(known)
        until = self._deadline()
        while value is ABSENT:
            flight = Flight.begin(self._values.index, known.digest)
            if flight is None or flight.leads:
                attempt = _Attempt(self, known, flight)
                with attempt:
                    if attempt.value is ABSENT:
                        attempt.computed(compute())
                return attempt.value
            if not flight.wait(until):
                return self._unstored(compute())
            value = self._outcome(known, flight)
        return value

    async def answer_async(self, known: Known, compute: Callable[[], Awaitable[Any]]) -> Any:
        """Do the same for a coroutine function, while other tasks run."""
        value = self._values.look(known)
        until = self._deadline()
        while value is ABSENT:
            flight = Flight.begin(self._values.index, known.digest)
            if flight is None or flight.leads:
                attempt = _Attempt(self, known, flight)
                with attempt:
                    if attempt.value is ABSENT:
                        attempt.computed(await compute())
                return attempt.value
            if not await flight.wait_async(until):
                return self._unstored(await compute())
            value = self._outcome(known, flight)
        return value

    def _deadline(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _unstored(self, value: Any) -> Any:
        self._values.core.count_request(False)
        return self._as_own(value)

    def _outcome(self, known: Known, flight: Flight) -> Any:
        """Return what another caller computed, or raise what it raised. ABSENT: look again."""
        found = self._values.index.find(known.digest)
        if found is None:
            return ABSENT
        if found.kind != lib.VRANGE_RECORD_ERROR:
            return self._values.value_of(known, found, waited=True)
        if found.landing == flight.landing:
            error = None
            with suppress(Exception):
                error = pickle.loads(found.payload)
            if isinstance(error, Exception):
                self._values.core.count_request(True)
                raise_shared(error)
        return ABSENT


class _Attempt:
    """A computation that this caller leads. `value` becomes the answer."""

    def __init__(self, answers: Answers, known: Known, flight: Flight | None) -> None:
        self._answers, self._known, self._flight = answers, known, flight
        self.value: Any = ABSENT

    def __enter__(self) -> None:
        values, known = self._answers._values, self._known
        if self._flight is not None:
            self._flight.__enter__()
        try:
            # First, because a result is not stored if the key is removed from here on.
            self._changes = values.changes_of(known)
            self.value = values.look(known)  # another caller may have landed just before
            self._begun = time.monotonic_ns()
        except BaseException:
            self._end()
            raise

    def computed(self, value: Any) -> None:
        """Store the result."""
        took_ns = time.monotonic_ns() - self._begun
        answers, flight = self._answers, self._flight
        answers._values.core.count_request(False)
        answers._computed(took_ns)
        if flight is None or not flight.skipped:
            answers._values.store(self._known, value, self._changes, cost_ns=took_ns)
        self.value = answers._as_own(value)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if isinstance(error, Exception) and self._flight is not None:
                self._tell(error, self._flight.landing)
        finally:
            self._end()

    def _tell(self, error: Exception, landing: int) -> None:
        """Publish the error for the callers that wait. If it can't be pickled, they compute."""
        values = self._answers._values
        values.core.count_request(False)
        with suppress(Exception):
            values.store_error(self._known, pickle.dumps(error, 5), self._changes, landing)

    def _end(self) -> None:
        if self._flight is not None:
            self._flight.__exit__()
