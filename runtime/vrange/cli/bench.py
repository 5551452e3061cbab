"""`vrange bench`: what the main operations cost on this machine, beside what they replace.

Each row measures both sides by turns, in rounds, and shows the median of each and of their ratio.
Wall time on a busy machine is noise; the ratio is less so. It needs NumPy for rows with arrays.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec

import vrange
from vrange.cli.durations import duration

__all__ = ["Figure", "add_parser", "measure", "run"]

Operation = Callable[[], object]
_ROUND_SECONDS = 0.004


@dataclass(frozen=True)
class Figure:
    """What one operation costs.

    Attributes
    ----------
    name, peer_name : str
        The operation, and what it is compared with.
    seconds, peer_seconds : float
        The medians of the rounds.
    ratio : float
        The median of the rounds' ratios of the operation to its peer.

    """

    name: str
    peer_name: str
    seconds: float
    peer_seconds: float
    ratio: float


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `vrange bench`."""
    parser = subparsers.add_parser(
        "bench",
        help="measure the main operations on this machine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: less exact")
    parser.add_argument("--json", action="store_true", help="write the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure and print, and return 0."""
    figures = []
    if not args.json:
        print(f"rung {vrange.capabilities().rung}; times are medians, less than 1 × is less time")
    for figure in measure(rounds=5 if args.quick else 51):
        figures.append(figure)
        if not args.json:
            print(
                f"{figure.name:40} {duration(figure.seconds):>8}   {figure.ratio:5.2f} × "
                f"{figure.peer_name} ({duration(figure.peer_seconds)})",
                flush=True,
            )
    if args.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
    return 0


def measure(rounds: int) -> Iterator[Figure]:
    """Yield the figures, each as soon as it is measured."""
    for name, operation, peer_name, peer in _operations():
        times = max(1, int(_ROUND_SECONDS / max(_seconds(operation, 1), _seconds(peer, 1), 1e-9)))
        times = min(times, 10_000)
        pairs = [(_seconds(operation, times), _seconds(peer, times)) for _ in range(rounds)]
        yield Figure(
            name,
            peer_name,
            statistics.median(ours for ours, _ in pairs),
            statistics.median(theirs for _, theirs in pairs),
            statistics.median(ours / theirs for ours, theirs in pairs),
        )


def _seconds(operation: Operation, times: int) -> float:
    """Return the seconds of one call."""
    begun = time.perf_counter()
    for _ in range(times):
        operation()
    return max((time.perf_counter() - begun) / times, 1e-9)


def _operations() -> Iterator[tuple[str, Operation, str, Operation]]:
    """Yield what is measured: name and operation, and those of its peer."""

    def small(n: int) -> bytes:
        return b"x" * 200

    ours, theirs = vrange.cached(name="bench-hot")(small), functools.lru_cache(small)
    yield "hit on a hot value of 200 bytes", lambda: ours(1), "lru_cache", lambda: theirs(1)
    yield from _ranges()
    if find_spec("numpy") is not None:
        yield from _arrays()

    def nothing() -> None: ...

    yield "a deep call", lambda: vrange.deep_call(nothing), "a call in a thread", _in_thread


def _ranges() -> Iterator[tuple[str, Operation, str, Operation]]:
    size = 1 << 20
    with vrange.Arena("64MiB", name="bench") as arena:
        one = arena.allocate(size)
        one.buffer[:] = bytes(size)

        def release_and_pin() -> None:
            one.mark_volatile()
            if one.pin():
                one.refilled()

        def free_and_fill() -> None:
            bytearray(size)

        yield "release 1 MiB, and use it again", release_and_pin, "new zeros", free_and_fill


def _arrays() -> Iterator[tuple[str, Operation, str, Operation]]:
    import numpy as np

    def large(n: int) -> object:
        return np.zeros(32_768)

    with vrange.VolatileCache[int, object](name="bench-volatile", hot_bytes=0) as cache:
        cache.get_or_compute(1, lambda: large(1))
        held = large(1)

        def copied() -> object:
            return held.copy()  # type: ignore[attr-defined]

        yield "hit on a volatile array of 256 KiB", lambda: cache[1], "copying it", copied
    if vrange.capabilities().rung != "refault":
        return
    block = 65_536
    array = vrange.VolatileArray((block,), "u1", fill=vrange.fills.pattern(b"vrange"), name="bench")
    ready, plain = np.asarray(array).copy(), np.empty(block, "u1")

    def refault() -> None:
        array.discard()
        array[0]

    def filled() -> None:
        plain[:] = ready

    yield "lose 64 KiB of an array, and touch it", refault, "copying them", filled


def _in_thread() -> None:
    import threading

    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
