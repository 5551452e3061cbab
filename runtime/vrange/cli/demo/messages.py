"""The messages between the demo and its child: one JSON object a line, with a name and fields."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

__all__ = ["PHASES", "Contender", "Job", "Latency", "Message", "Result", "Sample", "Sizing"]

Contender = Literal["vrange", "dict", "LRU"]

# "fill" computes every value once; the other phases request values in skewed order. The application
# takes its share at the start of "during" and frees it at the start of "after".
PHASES = ("fill", "before", "during", "after")


@dataclass(frozen=True)
class Job:
    """The task of a child.

    Attributes
    ----------
    contender : Contender
        The cache to use.
    limit_bytes : int
        The memory that the child may use.
    enforced : bool
        Whether a cgroup enforces the limit. If not, the child enforces it itself: with the volatile
        cache, by having ranges discarded; with the others, by stopping where they would be killed.
    value_bytes : int
        The approximate bytes of values to work with.
    phase_seconds : float
        The duration of each phase if the cache keeps up.
    fill_seconds : float
        The longest time to compute values for, if `values` is None.
    values : int or None
        The number of values to work with; None: those of `value_bytes`.
    app_bytes : int or None
        The bytes that the application takes; None: determine them, and report them.
    lru_bytes : int
        The bytes that the LRU may hold.

    """

    contender: Contender
    limit_bytes: int
    enforced: bool
    value_bytes: int
    phase_seconds: float
    fill_seconds: float
    values: int | None = None
    app_bytes: int | None = None
    lru_bytes: int = 0


@dataclass(frozen=True)
class Sizing:
    """What the child measured after filling, in bytes.

    `base_bytes` is its usage besides values.
    """

    values: int
    files: int
    value_bytes: int
    base_bytes: int
    app_bytes: int
    rung: str


@dataclass(frozen=True)
class Sample:
    """The child's progress. Counters cover the phase so far; `last` marks the end of the phase.

    `waited_seconds` is the total time between requesting values and receiving them.
    """

    phase: str
    seconds: float
    requests: int
    hits: int
    purged: int
    recomputed: int
    recompute_seconds: float
    waited_seconds: float
    wrong: int
    app_bytes: int
    usage_bytes: int
    bytes: dict[str, int]
    hit_median_seconds: float | None = None
    last: bool = False

    @property
    def hit_ratio(self) -> float | None:
        """The ratio of hits to requests; None before the first request."""
        return self.hits / self.requests if self.requests else None


@dataclass(frozen=True)
class Latency:
    """One outcome of time-to-free or time-to-reallocate: the figures that show whether it works."""

    what: str
    count: int
    p50_seconds: float
    p99_seconds: float


@dataclass(frozen=True)
class Result:
    """The child's last message. `over`: without a cgroup, it stopped where it would be killed."""

    latencies: list[Latency] = field(default_factory=list)
    over: bool = False


Message = Job | Sizing | Sample | Result
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in (Job, Sizing, Sample, Result)}


def to_line(message: Message) -> str:
    """Return a message as a line.

    >>> from_line(to_line(Result())) == Result()
    True
    """
    return json.dumps([type(message).__name__, asdict(message)]) + "\n"


def from_line(line: str) -> Message:
    """Parse a message. Raise ValueError, TypeError or KeyError if it isn't one."""
    name, fields = json.loads(line)
    message = _KINDS[name](**fields)
    if isinstance(message, Result):
        latencies = [Latency(**latency) for latency in fields["latencies"]]
        return Result(latencies, message.over)
    return message
