"""A web worker answers many small requests, and between them once a large report.

https://github.com/benoitc/gunicorn/issues/2065, https://github.com/benoitc/gunicorn/issues/1981
"""

import json
from collections.abc import Callable, Iterable
from wsgiref.util import setup_testing_defaults

Log = list[dict[str, object]]
log: Log = []


def app(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    rows = int(environ["QUERY_STRING"])
    found = [
        {"id": row, "name": f"customer {row}", "lines": [row, row * 2], "text": "x" * (row % 90)}
        for row in range(rows)
    ]
    log.append({"rows": rows, "first": dict(found[0])})
    body = json.dumps(found).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def work() -> object:
    total = 0
    for request in range(600):
        environ = {"QUERY_STRING": "400000" if request == 300 else "300"}
        setup_testing_defaults(environ)
        total += sum(map(len, app(environ, lambda *_: None)))
    return total, log
