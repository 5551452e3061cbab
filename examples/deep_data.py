"""Data nested deeper than CPython's own modules go: json, pickle, copy, comparison, repr.

All of these are recursive in C and have limits that no setting lifts. In a deep call, the same
functions just work: ``python examples/deep_data.py 200000``.
"""

from __future__ import annotations

import copy
import json
import operator
import pickle
import sys
from typing import Any

import vrange

deep = vrange.DeepStack("4GiB", name="deep data")


def nested_text(depth: int) -> str:
    """Return JSON of a reply to a reply to a reply, `depth` times."""
    return '{"reply": ' * depth + '"the first"' + "}" * depth


def depth_of(reply: Any) -> int:
    """Return how many replies are nested in one another."""
    depth = 0
    while isinstance(reply, dict):
        reply, depth = reply["reply"], depth + 1
    return depth


def main() -> None:
    depth = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    thread = deep.call(json.loads, nested_text(depth))
    print(f"json.loads     {depth_of(thread):,} deep")
    print(f"json.dumps     {len(deep.call(json.dumps, thread)):,} characters")
    pickled = deep.call(pickle.dumps, thread)
    again = deep.call(pickle.loads, pickled)
    print(f"pickle         {len(pickled):,} bytes")
    copied = deep.call(copy.deepcopy, thread)
    print(f"copy.deepcopy  {depth_of(copied):,} deep")
    print(f"==             {deep.call(operator.eq, copied, again)}")
    inner = thread
    for _ in range(depth - min(depth, 50_000)):  # repr is quadratic in the depth
        inner = inner["reply"]
    print(f"repr           {len(deep.call(repr, inner)):,} characters")


if __name__ == "__main__":
    main()
