"""What stays of 2,000,000 dicts of which one in a thousand is kept, after each level of trim.

python levels.py DIRECTORY  # the one that holds the compiled module
"""

import gc
import importlib
import sys
from pathlib import Path

OBJECTS = 2_000_000

sys.path.insert(0, sys.argv[1])
pymalloc = importlib.import_module("_pymalloc")


def anonymous_mib() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous")) >> 10


def build() -> list[dict[str, object]]:
    return [{"id": i, "s": f"item{i}"} for i in range(OBJECTS)]


def is_right(one: dict[str, object]) -> bool:
    return one["s"] == f"item{one['id']}"


refusal = pymalloc.watch()
assert refusal is None, refusal
everything = build()
left = {"full": anonymous_mib()}
kept = everything[::1000]
del everything
gc.collect()
left["dropped"] = anonymous_mib()
for level, name in enumerate(("pools", "tails", "holes")):
    pymalloc.trim(level, 2_000_000)
    left[name] = anonymous_mib()
assert all(map(is_right, kept))
assert all(map(is_right, build()))
assert all(map(is_right, kept))
print(sys.version.split()[0], left, "MiB; kept and rebuilt content is right")
