"""`vrange run --deep` with libraries that people use, and behind gunicorn."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from run_support import VRANGE, clean_environment, plain, program, run
from support import free_port

HELPERS = {"PYTHONPATH": str(Path(__file__).parents[1] / "helpers")}
LEVELS = 5000

SYMPY = """
import sympy, pickle
expression = sympy.Symbol("x")
for _ in range(LEVELS):
    expression = sympy.sin(expression, evaluate=False)
assert len(str(expression)) == 5 * LEVELS + 1
assert len(pickle.dumps(expression)) > LEVELS
"""
LARK = """
import lark
class Depth(lark.visitors.Interpreter):
    def start(self, tree):
        return 1 + sum(self.visit_children(tree))
parser = lark.Lark('start: "(" start? ")"', parser="lalr")
assert Depth().visit(parser.parse("(" * LEVELS + ")" * LEVELS)) == LEVELS
"""
NETWORKX = """
import networkx
graph = networkx.path_graph(LEVELS, create_using=networkx.DiGraph)
assert len(networkx.condensation(graph)) == LEVELS
assert networkx.tree_data(graph, 0)["id"] == 0
"""
LXML = """
from lxml import etree
root = last = etree.Element("a")
for _ in range(LEVELS):
    last = etree.SubElement(last, "a")
def depth(element):
    return 1 + max((depth(child) for child in element), default=0)
assert depth(root) == LEVELS + 1
"""
LINKED = """
import copy, pickle
class Node:
    next = None
head = None
for _ in range(LEVELS):
    node = Node()
    node.next, head = head, node
again = pickle.loads(pickle.dumps(copy.deepcopy(head)))
count = 0
while again:
    again, count = again.next, count + 1
assert count == LEVELS
"""


@pytest.mark.parametrize("code", [SYMPY, LARK, NETWORKX, LXML, LINKED])
def test_a_library_recurses_as_deep_as_its_data(tmp_path: Path, code: str) -> None:
    file = program(tmp_path, f"LEVELS = {LEVELS}\n{code}\nprint('done')\n")
    done = run("--deep", file, timeout=110)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
    assert "RecursionError" in plain(file, timeout=110).stderr


def test_a_million_levels_are_returned(tmp_path: Path) -> None:
    """Main and a thread: 99 % of what their stacks used goes back to the kernel within a second."""
    code = """
import pickle, vrange
N = 1_000_000
def million():
    nested = json.loads("[" * N + "]" * N)
    assert len(json.dumps(nested)) == 2 * N
    assert len(pickle.dumps(nested)) > 2 * N
    while nested:
        nested = nested.pop()
def stack():
    own = threading.get_native_id()
    return next(use for use in vrange.stack_info().threads if use.thread_id == own)
def used_and_left():
    million()
    used = stack().high_water_bytes
    end = time.monotonic() + 10
    while stack().resident_bytes > 1 << 20 and time.monotonic() < end:
        time.sleep(.05)
    return used > 100 << 20, stack().resident_bytes < used / 100
print(used_and_left(), in_thread(used_and_left))
"""
    file = program(tmp_path, "import json, threading, time\nfrom deep_program import *\n" + code)
    done = run(
        "--deep", "--trim-every", "never", "--no-numpy", file, timeout=110, environment=HELPERS
    )
    assert (done.stdout, done.stderr) == ("(True, True) (True, True)\n", "")


def test_a_worker_of_gunicorn(tmp_path: Path) -> None:
    code = """
from deep_program import *
def app(environ, start_response):
    good = recurse(LEVELS) == os.getpid() != os.getppid() and in_thread(visit, LEVELS) == LEVELS
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(good).encode()]
"""
    program(tmp_path, code, "deep_app.py")
    port = free_port()
    command = [*VRANGE, "run", "--deep", "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"]
    with subprocess.Popen(
        [*command, "--timeout", "100", "deep_app:app"],
        cwd=tmp_path,
        env=clean_environment(**HELPERS),
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert answer(f"http://127.0.0.1:{port}/", server) == "True"
        finally:
            server.terminate()
            server.communicate(timeout=30)


def answer(url: str, server: subprocess.Popen[str]) -> str:
    """The server's answer, once it listens."""
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                return str(response.read().decode())
        except (ConnectionError, urllib.error.URLError):
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
