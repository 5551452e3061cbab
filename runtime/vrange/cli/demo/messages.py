"""What the demo and its child say to each other: one JSON object a line, with a name and fields."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

__all__ = ["PHASES", "Contender", "Job", "Latency", "Message", "Result", "Sample", "Sizing"]

Contender = Literal["vrange", "dict", "LRU"]

# "fill" computes every value once; the others request them in skewed order. The application takes
# its share at the start of "during" and gives it back at the start of "after".
PHASES = ("fill", "before", "during", "after")


@dataclass(frozen=True)
class Job:
    """What a child is to do.

    Attributes:
        contender: Which cache.
        limit_bytes: What it may use, in bytes.
        enforced: Whether a cgroup holds it to that. If not, it does so itself: the volatile cache
            by having ranges discarded, the others by stopping where they would be killed.
        value_bytes: How many bytes of values to work with, about.
        phase_seconds: How long each phase takes if the cache keeps up.
        fill_seconds: How long to compute values for at most, where `values` is None.
        values: How many values to work with; None: those of `value_bytes`.
        app_bytes: How much the application takes; None: find out, and say so.
        lru_bytes: What the LRU may hold.

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
    """What the child found after filling, in bytes.

    `base_bytes` is what it uses besides values.
    """

    values: int
    files: int
    value_bytes: int
    base_bytes: int
    app_bytes: int
    rung: str


@dataclass(frozen=True)
class Sample:
    """Where the child is. Counters are those of the phase so far; `last` marks its end.

    `waited_seconds` is the time from asking the cache for values to having them.
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
        """Hits of requests; None before the first request."""
        return self.hits / self.requests if self.requests else None


@dataclass(frozen=True)
class Latency:
    """One of the two figures that tell whether it works, in one of its stages or outcomes."""

    what: str
    count: int
    p50_seconds: float
    p99_seconds: float


@dataclass(frozen=True)
class Result:
    """What the child says last. `over`: without a cgroup, it stopped where it would be killed."""

    latencies: list[Latency] = field(default_factory=list)
    over: bool = False


Message = Job | Sizing | Sample | Result
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in (Job, Sizing, Sample, Result)}


def to_line(message: Message) -> str:
    """Write a message as a line.

    >>> from_line(to_line(Result())) == Result()
    True
    """
    return json.dumps([type(message).__name__, asdict(message)]) + "\n"


def from_line(line: str) -> Message:
    """Read a message. ValueError, TypeError or KeyError for what isn't one."""
    name, fields = json.loads(line)
    message = _KINDS[name](**fields)
    if isinstance(message, Result):
        latencies = [Latency(**latency) for latency in fields["latencies"]]
        return Result(latencies, message.over)
    return message
