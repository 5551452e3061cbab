"""A large JSON document is parsed, and one object in a thousand is kept.

https://stackoverflow.com/questions/15455048/releasing-memory-in-python
"""

import json


def work() -> object:
    entry = '{"id": %d, "name": "entry %d", "tags": ["a%d", "b"], "position": [%d.5, %d.25]}'
    text = "[" + ",".join(entry % ((number,) * 5) for number in range(500_000)) + "]"
    return json.loads(text)[::1000]
