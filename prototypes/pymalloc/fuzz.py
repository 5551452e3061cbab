"""Stamped objects come and go for 20 s while another thread trims at all levels.

python fuzz.py DIRECTORY  # the one that holds the compiled module
"""

import importlib
import random
import sys
import threading
import time

sys.path.insert(0, sys.argv[1])
pymalloc = importlib.import_module("_pymalloc")

refusal = pymalloc.watch()
assert refusal is None, refusal
sys.setswitchinterval(0.0005)
going_on = True
trims = refused_arenas = given_back = 0


def trim() -> None:
    global trims, refused_arenas, given_back
    while going_on:
        found = pymalloc.trim(trims % 3, 500_000)
        trims += 1
        refused_arenas += found[2]
        given_back += sum(found[3:6])
        time.sleep(0.001)


def is_right(key: int, value: bytes) -> bool:
    return value == bytes([key % 256]) * len(value)


trimmer = threading.Thread(target=trim)
trimmer.start()
chance = random.Random(7)
live: dict[int, bytes] = {}
made = 0
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    for _ in range(2000):
        made += 1
        live[made] = bytes([made % 256]) * chance.randrange(1, 480)
    if chance.random() < 0.3:
        share = chance.choice((0.5, 0.9, 0.99))
        for key in chance.sample(list(live), int(len(live) * share)):
            assert is_right(key, live.pop(key))
    for key in chance.sample(list(live), min(500, len(live))):
        assert is_right(key, live[key])
going_on = False
trimmer.join()
assert all(is_right(key, value) for key, value in live.items())
assert given_back > 0
print(
    f"{sys.version.split()[0]}: {trims} trims gave {given_back >> 20} MiB back, "
    f"{refused_arenas} arenas were refused, no content was wrong"
)
