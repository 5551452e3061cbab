"""Starts the service, a real Prometheus and a load, and prints what Prometheus stored.

python -m examples.thumbnails [--server gunicorn] [--seconds 30]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from examples.thumbnails.running import Load, Prometheus, Service, free_port

QUESTIONS = {
    "requests a second": "sum(rate(vrange_cache_requests_total[30s]))",
    "hit ratio, by cache": "vrange:cache_hits:ratio_rate5m",
    "purged bytes a second": "sum(rate(vrange_purged_bytes_total[30s]))",
    "bytes, by cache and state": "sum by (name, state) (vrange_bytes) > 0",
    "time-to-free, p99 in seconds": "vrange:time_to_free_seconds:p99_rate5m",
    "time-to-reallocate, p99 in seconds": "vrange:time_to_reallocate_seconds:p99_rate5m",
    "computing again, mean in seconds": "vrange:regenerate_seconds:mean_rate5m",
    "refaults": "sum(vrange_refaults_total)",
    "processes": "vrange_processes",
    "rung": "vrange_info",
    "alerts": "ALERTS",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--server", choices=("uvicorn", "gunicorn"), default="uvicorn")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--port", type=int, default=0, help="of the service; by default a free one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vrange-example-") as name:
        directory = Path(name)
        try:
            with (
                Service(args.server, args.port or free_port(), directory) as service,
                Prometheus([service.target], directory) as prometheus,
            ):
                print(f"service {service.url}   Prometheus {prometheus.url}", flush=True)
                load_until(service, time.monotonic() + args.seconds)
                time.sleep(1.5)  # one more scrape
                report(prometheus)
        except (FileNotFoundError, RuntimeError) as error:
            print(error, file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130
    return 0


def load_until(service: Service, deadline: float) -> None:
    with Load(service, pause=0.002):
        while time.monotonic() < deadline:
            time.sleep(1)
            # What memory pressure does by itself: then some of what is asked for is gone.
            service.discard()


def report(prometheus: Prometheus) -> None:
    for title, expression in QUESTIONS.items():
        print(f"\n{title}: {expression}")
        for series in prometheus.query(expression):
            hidden = ("__name__", "job", "instance")
            labels = {key: value for key, value in series["metric"].items() if key not in hidden}
            told = ", ".join(f"{key} {value}" for key, value in labels.items())
            print(f"  {float(series['value'][1]):>14.6g}  {told}")


if __name__ == "__main__":
    sys.exit(main())
