"""How the workers' shared cache grows with the number of workers: a simulation of its decisions.

    python -m benchmarks.dask.growth

The directories of `vrange.dask.cached` are real, and what lies between them is not: a question is a
call. Each worker asks for values by a Zipf law, keeps the 200 that it used last, and computes what
no other has. In the middle, a tenth of the workers leave at once. Counted are the values that are
computed, beside a cache in each worker alone; the messages for each request; and the share of the
questions that the busiest home gets, where an equal share would be 1.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, OrderedDict
from typing import Any

import numpy as np

from benchmarks import report
from vrange.dask.directory import Directory, home_of

KEYS, EACH, KEPT = 2000, 300, 200
WORKERS = (2, 10, 100)


class _Worker:
    """A worker as far as its peers see it."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.kept: OrderedDict[str, None] = OrderedDict()

    def keep(self, key: str) -> None:
        self.kept[key] = None
        self.kept.move_to_end(key)
        if len(self.kept) > KEPT:
            self.kept.popitem(last=False)


async def _request(name: str, key: str, workers: dict[str, _Worker], counted: Counter[str]) -> None:
    mine = workers[name]
    if key in mine.kept:
        mine.keep(key)
        counted["hits"] += 1
        return
    home = home_of(key, workers)
    directory = workers[home].directory
    while True:
        counted["messages"] += home != name
        counted[f"asked {home}"] += 1
        answer = await directory.ask(key, name, workers=workers, patience=1.0)
        if answer.compute:
            counted["computed"] += 1
            break
        if answer.holder is not None:
            counted["messages"] += 1
            if key in workers[answer.holder].kept:
                counted["fetched"] += 1
                break
            counted["messages"] += home != name
            directory.lost(key, answer.holder)
    mine.keep(key)
    counted["messages"] += home != name
    directory.computed(key, name, has_value=True)


async def simulate(count: int) -> dict[str, Any]:
    """Return the figures of so many workers."""
    random = np.random.default_rng(count)
    ranks = np.minimum(random.zipf(1.2, (EACH, count)), KEYS)
    workers = {f"tcp://{n}": _Worker() for n in range(count)}
    alone = {name: _Worker() for name in workers}
    counted: Counter[str] = Counter()
    computed_alone = 0
    requests = 0
    for turn, row in enumerate(ranks):
        if turn == EACH // 2:
            for name in list(workers)[: count // 10]:
                del workers[name]
        here = [(name, f"key {rank}") for name, rank in zip(alone, row, strict=True)]
        here = [one for one in here if one[0] in workers]
        requests += len(here)
        for name, key in here:
            computed_alone += key not in alone[name].kept
            alone[name].keep(key)
        await asyncio.gather(*(_request(name, key, workers, counted) for name, key in here))
    asked = [amount for what, amount in counted.items() if what.startswith("asked")]
    return {
        "workers": count,
        "requests": requests,
        "computed": counted["computed"],
        "computed alone": computed_alone,
        "messages each": counted["messages"] / requests,
        "busiest home": max(asked) * count / sum(asked),
    }


def main() -> int:
    parser = report.arguments(__doc__)
    options = parser.parse_args()
    rows = [asyncio.run(simulate(count)) for count in WORKERS]
    print(report.table(rows))
    return report.write("dask.growth", options.results, {"rows": rows}, [])


if __name__ == "__main__":
    sys.exit(main())
