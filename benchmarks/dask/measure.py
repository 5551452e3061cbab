"""One workload on one new cluster, and what its workers read, wrote, and kept."""

from __future__ import annotations

import gc
import logging
import os
import tempfile
import time
from typing import Any

import dask
import psutil
from distributed import Client, LocalCluster

from benchmarks.dask.workloads import WORKLOADS

# What nannies set in their workers' environment: by default, MALLOC_TRIM_THRESHOLD_ as well.
ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
WITHOUT_TRIM = {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1}
WARM_SCALE = 0.06
CONTENDERS = ("Dask", "Dask without its MALLOC_TRIM_THRESHOLD_", "vrange")


def _look(dask_worker: Any) -> dict[str, float]:
    counted = dask_worker.data.cumulative_metrics
    process = psutil.Process()
    times = process.cpu_times()
    return {
        "pid": os.getpid(),
        "read": counted["disk-read", "bytes"],
        "written": counted["disk-write", "bytes"],
        "cpu": times.user + times.system,
        "resident": process.memory_info().rss,
        "counted": dask_worker.monitor.get_process_memory(),
    }


def measure(
    contender: str, workload: str, limit: str, scale: float, quiet: float
) -> dict[str, Any]:
    """Return the figures of one run; `found` is None if the cluster lost the work."""
    options: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if contender == "vrange":
        import vrange.dask

        options["data"] = vrange.dask.VolatileBuffer
    elif contender != "Dask":
        settings[ENVIRONMENT] = WITHOUT_TRIM
    with (
        dask.config.set(settings),
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit=limit,
            dashboard_address=":0",
            local_directory=directory,
            silence_logs=logging.CRITICAL,
            **options,
        ) as cluster,
        Client(cluster) as client,
    ):
        if contender == "vrange":
            client.register_plugin(vrange.dask.Plugin())
        # Unmanaged is what the work leaves, not the modules that it imports.
        WORKLOADS[workload](client, WARM_SCALE)
        client.run(gc.collect)
        time.sleep(quiet)
        before = client.run(_look)
        began = time.monotonic()
        try:
            found: float | None = WORKLOADS[workload](client, scale)
        except Exception as error:  # such as KilledWorker: that is a result
            print(f"{contender}, {workload}: {type(error).__name__}: {error}", flush=True)
            found = None
        seconds = time.monotonic() - began
        after = client.run(_look)
        time.sleep(quiet)
        at_rest = client.run(_look)
    pids = {one["pid"] for one in before.values()}
    return {
        "found": found,
        "seconds": seconds,
        "read": sum(one["read"] for one in after.values()),
        "written": sum(one["written"] for one in after.values()),
        "cpu": sum(one["cpu"] for one in after.values())
        - sum(one["cpu"] for one in before.values()),
        "restarts": sum(one["pid"] not in pids for one in after.values()),
        "unmanaged": sum(one["counted"] for one in at_rest.values())
        - sum(one["counted"] for one in before.values()),
        "resident": sum(one["resident"] for one in at_rest.values())
        - sum(one["resident"] for one in before.values()),
    }
