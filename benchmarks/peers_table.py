"""The table of docs/caches.md: what vrange and its peers do, each property tried on the library.

Method. For each property and cache, a child process decorates a function and tries it: a container
that is too small, a second program that needs memory, callers at once, a change of the state while
a value is computed, a second process. A cache that does more on request is tried with that option
as well. Nothing is taken from documentation. The bounds of entries that these caches have are not
set, as in a program for which nobody knows what fits.

Hits are timed in one process, all caches in turn, and compared by the medians of the rounds'
ratios. The bytes of an entry are the growth of the process's anonymous memory (smaps_rollup) and of
the blocks of files; they include the key and a value of 200 bytes.

Check: every answer is compared with what the function returns. `python -m benchmarks.peers_table
--from-results` prints the table again from the JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from benchmarks import contender, report
from benchmarks.interleave import paired_ratio
from benchmarks.peers_table_caches import CACHES
from benchmarks.peers_table_callers import CALLERS, Facts
from benchmarks.peers_table_child import MIB
from benchmarks.report import Target
from vrange.cli.memory_cgroup import MemoryCgroup

CHILD = "benchmarks.peers_table_child"
Results = dict[str, dict[str, Facts]]  # by property and cache: {"default": …, "option": …}

# Without the option there is nothing to try.
ONLY_WITH_OPTION = {"ttl"}
WITHOUT_LIMIT = (
    "array",
    "mutation",
    "async",
    "stampede",
    "failure",
    "ttl",
    "invalidation",
    "unpicklable",
    "shared",
    "small",
)
ON_DISK = {"diskcache", "joblib.Memory"}


def try_one(cache: str, property_: str, limit: int | None = None, **task: Any) -> Facts:
    """Run one child in a directory of its own, and return what it found."""
    with tempfile.TemporaryDirectory(prefix="peers-table-", dir="/var/tmp") as directory:
        whole = {"cache": cache, "property": property_, "directory": directory, **task}
        outcome = contender.run(CHILD, whole, limit_bytes=limit)
        if property_ == "shared":  # once more, after the process that stored has ended
            later = contender.run(CHILD, {**whole, "role": "ask"})
            return {
                "by_second_process": outcome.told("found")[0]["computed_by_second"] == 0,
                "after_restart": later.told("found")[0]["computed"] == 0,
            }
    facts = {name: fact for line in outcome.lines for name, fact in line.items() if name != "kind"}
    if limit is not None:
        return {**facts, "survived": outcome.survived, "peak_bytes": outcome.peak_bytes}
    if not outcome.survived:
        raise RuntimeError(f"{cache}, {property_}: {outcome}\n{outcome.stderr}")
    return facts


def measure(quick: bool) -> Results:
    limit = (128 if quick else 256) * MIB
    found: Results = {}

    def put(property_: str, cache: str, variant: str, **task: Any) -> None:
        print(f"{property_}, {cache}, {variant}", file=sys.stderr)
        facts = try_one(cache, property_, option=variant == "option", **task)
        found.setdefault(property_, {}).setdefault(cache, {})[variant] = facts

    for cache, peer in CACHES.items():
        for property_ in WITHOUT_LIMIT:
            entries = (5_000 if cache in ON_DISK else 300_000) // (10 if quick else 1)
            if property_ not in ONLY_WITH_OPTION:
                put(property_, cache, "default", entries=entries)
            if property_ in peer.options:
                put(property_, cache, "option")
        put("growth", cache, "default", limit=limit, values=(2 if quick else 4) * limit // MIB)
        fits, neighbour = (64, 50) if quick else (160, 120)
        put("give_back", cache, "default", limit=limit, values=fits, neighbour_mib=neighbour)
    rounds, seconds = (3, 0.02) if quick else (9, 0.2)
    for what in ("bytes", "array"):
        times = try_one("vrange", "hits", what=what, rounds=rounds, seconds=seconds)
        found[f"hit_{what}"] = {
            cache: {
                "default": {
                    "times_lru_cache": paired_ratio(times[cache], times["functools.lru_cache"]),
                    "ns": sorted(times[cache])[rounds // 2],
                }
            }
            for cache in CACHES
        }
    return found


def in_small_container(facts: Facts) -> str:
    if not facts["survived"]:
        return "killed"
    disk = facts["disk_bytes"] // MIB
    kept = f"{facts['kept']} of {facts['asked']} kept"
    return f"survives: {disk} MiB on disk, {kept}" if disk else f"survives: in memory, {kept}"


def gives_back(facts: Facts) -> str:
    return "yes" if facts["survived"] and facts.get("neighbour_status") == 0 else "no: OOM kill"


def changes(facts: Facts) -> str:
    """Group the kinds of values by what a change of a hit does."""
    outcomes: dict[str, list[str]] = {}
    for kind, outcome in facts.items():
        outcomes.setdefault(outcome, []).append(kind)
    if len(outcomes) == 1:
        return next(iter(outcomes))
    return ", ".join(f"{outcome} ({', '.join(kinds)})" for outcome, kinds in outcomes.items())


def coroutines(facts: Facts) -> str:
    if not facts["works"]:
        return f"no: `{facts['error'].partition(':')[0]}`"
    return f"yes; {CALLERS} tasks: {facts['computed_by_tasks']}"


def bytes_of_entry(facts: Facts) -> str:
    if facts["disk_bytes"] > facts["memory_bytes"]:
        return f"{facts['disk_bytes']:,.0f} on disk"
    return f"{facts['memory_bytes']:,.0f}"


def times(facts: Facts) -> str:
    value = facts["times_lru_cache"]
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def yes(name: str) -> Callable[[Facts], str]:
    return lambda facts: "yes" if facts[name] else "no"


ROWS: list[tuple[str, str, Callable[[Facts], str]]] = [
    ("1 MiB values, four times a container's memory", "growth", in_small_container),
    ("another program gets the memory", "give_back", gives_back),
    ("hit on an array", "array", lambda facts: "a copy" if facts["copied"] else "no copy"),
    ("changing an answer", "mutation", changes),
    (f"computed by {CALLERS} threads at once", "stampede", lambda facts: str(facts["computed"])),
    ("async functions", "async", coroutines),
    ("an exception is cached", "failure", yes("cached")),
    ("expiry", "ttl", yes("expires")),
    (
        "cleared during a computation, later calls get",
        "invalidation",
        lambda facts: f"the {facts['later']} result",
    ),
    ("a value that can't be pickled", "unpicklable", lambda facts: str(facts["outcome"])),
    ("a second process finds the value", "shared", yes("by_second_process")),
    ("a later process finds it", "shared", yes("after_restart")),
    ("bytes of an entry of 200 bytes", "small", bytes_of_entry),
    ("hit on 200 bytes, times `lru_cache`", "hit_bytes", times),
    ("hit on an array of 1 MiB, times `lru_cache`", "hit_array", times),
]


def shown(property_: str, cache: str, facts: Facts, cell: Callable[[Facts], str]) -> str:
    """Return a cell; what an option makes different is shown beside it."""
    usual = cell(facts["default"]) if "default" in facts else "no"
    if "option" not in facts or cell(facts["option"]) == usual:
        return usual
    label = CACHES[cache].options[property_][0]
    with_option = f"{cell(facts['option'])} with `{label}`"
    return with_option if property_ in ONLY_WITH_OPTION else f"{usual}; {with_option}"


def markdown(found: Results) -> str:
    lines = ["| | " + " | ".join(CACHES) + " |", "| --- " * (len(CACHES) + 1) + "|"]
    for title, property_, cell in ROWS:
        by_cache = found.get(property_, {})
        cells = [shown(property_, name, by_cache.get(name, {}), cell) for name in CACHES]
        lines.append("| " + " | ".join([title, *cells]) + " |")
    return "\n".join(lines)


def targets(found: Results) -> list[Target]:
    """Return what vrange promises in this table."""

    def ours(property_: str) -> Facts:
        facts: Facts = found[property_]["vrange"]["default"]
        return facts

    return [
        Target("survives growth", float(ours("growth")["survived"]), "at least", 1),
        Target("values kept", ours("growth").get("kept", 0), "at least", 1),
        Target("gives back", float(gives_back(ours("give_back")) == "yes"), "at least", 1),
        Target("computed by threads at once", ours("stampede")["computed"], "at most", 1),
        Target("computed by tasks at once", ours("async")["computed_by_tasks"], "at most", 1),
        Target("the new result", float(ours("invalidation")["later"] == "new"), "at least", 1),
    ]


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("--from-results", action="store_true", help="only print the table again")
    options = parser.parse_args()
    if options.from_results:
        print(markdown(json.loads((options.results / "peers_table.json").read_text())["found"]))
        return 0
    if refusal := MemoryCgroup.unavailable():
        print(f"skipped: {refusal}", file=sys.stderr)
        return 77
    found = measure(options.quick)
    print(markdown(found))
    return report.write("peers_table", options.results, {"found": found}, targets(found))


if __name__ == "__main__":
    sys.exit(main())
