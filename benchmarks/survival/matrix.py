"""What is tried: limits, shapes of bursts, contenders, and the details that a seed draws."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

LIMITS_MIB = (64, 128, 256, 512, 1024)

SHAPES = {
    "one step": "the application takes the memory in one piece",
    "ramp": "it takes the memory in 30 pieces, with requests in between",
    "12 threads": "12 threads take the memory at the same time, 1 MiB at a time",
    "other process": "another process in the cgroup takes the memory",
    "tmpfs": "the application writes a file to a tmpfs",
    "page cache": "another thread reads or writes files meanwhile",
    "small objects": "the application makes small Python objects",
    "lowered limit": "the limit is lowered in steps of 5 to 10 %, while requests go on",
    "prefork of 4": "4 forked workers, each with its cache, take the memory at the same time",
    "sleeping child": "a forked child exists and does nothing",
    "sharing child": "so it does, and what was held at the fork, a third of the values, is let go",
    "4 busy loops": "4 processes compute on the same cores",
}

RUNGS = ("refault", "sentinel", "eager")
DICT, UNTUNED, TUNED = "dict", "polling LRU", "polling LRU, tuned"
PEERS = (DICT, UNTUNED, TUNED)
CONTENDERS = RUNGS + PEERS

BURSTS = 3  # of one process
ROUNDS = 21  # of the whole matrix: more than 10,000 bursts against vrange
ROUNDS_OF_PEERS = 4


@dataclass(frozen=True)
class Case:
    """One process's life, the same for each contender. The seed draws what the rest leaves open."""

    limit_mib: int
    shape: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.limit_mib} MiB, {self.shape}, {self.seed}"

    def drawn(self) -> dict[str, Any]:
        """Return the details: the sizes of values and bursts, and what goes on beside them."""
        draw = random.Random(self.key)
        return {
            "value_kib": min(draw.choice((16, 64, 256, 256, 1024)), 2 * self.limit_mib),
            # Of what is possible at that moment.
            "shares": [round(draw.uniform(0.3, 0.98), 3) for _ in range(BURSTS)],
            "huge_pages": draw.random() < 0.5,
            "serves_meanwhile": draw.random() < 0.5,
            "holds": draw.choice((0, 0, 4)),  # values that are pinned
            "lower_by": round(draw.uniform(0.05, 0.1), 3),
            "lower_every_ms": draw.choice((5, 20, 50)),
            "writes_files": draw.random() < 0.5,
            "rest_ms": draw.choice((0, 0, 50, 1500)),  # after 1 s vrange's thread rests
        }

    def task(self) -> dict[str, Any]:
        return asdict(self) | self.drawn()


def cells(limits: tuple[int, ...], shapes: tuple[str, ...]) -> list[tuple[int, str]]:
    return [(limit, shape) for limit in limits for shape in shapes]


def whole(
    seed: int, limits: tuple[int, ...], shapes: tuple[str, ...], contenders: tuple[str, ...]
) -> Iterator[tuple[Case, str]]:
    """Yield every run of the matrix, a round at a time, each in a random order."""
    for number in range(ROUNDS):
        around = [Case(*cell, seed + number) for cell in cells(limits, shapes)]
        random.Random(seed + number).shuffle(around)
        run = [c for c in contenders if number < ROUNDS_OF_PEERS or c not in PEERS]
        for turn, case in enumerate(around):
            yield from ((case, contender) for contender in rotated(run, turn))


def sample(
    size: int,
    seed: int,
    limits: tuple[int, ...],
    shapes: tuple[str, ...],
    contenders: tuple[str, ...],
) -> Iterator[tuple[Case, str]]:
    """Yield the runs of `size` random cases. A larger sample begins with the smaller one."""
    draw = random.Random(seed)
    every = cells(limits, shapes)
    for number in range(size):
        if number % len(every) == 0:
            draw.shuffle(every)
        case = Case(*every[number % len(every)], seed + number)
        yield from ((case, contender) for contender in rotated(list(contenders), number))


def rotated(contenders: list[str], turn: int) -> list[str]:
    """Return them beginning with another one each turn, so that none always follows the same."""
    first = turn % len(contenders)
    return contenders[first:] + contenders[:first]
