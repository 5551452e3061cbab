"""What the tests of volatile arrays share: the rungs, and child processes."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

import vrange

if TYPE_CHECKING:
    from typing_extensions import Buffer

HERE = Path(__file__).parent
RUNG = vrange.capabilities().rung
REFAULT = RUNG == "refault"


def on_refault(test: Callable[..., Any]) -> Callable[..., Any]:
    """On a lower rung the test is another one: volatile arrays can be refused there."""
    if REFAULT:
        return test

    def test_is_refused_on_a_lower_rung() -> None:
        with pytest.raises(vrange.VrangeError, match=r"needs the refault rung.*eager=True"):
            vrange.VolatileArray(1000, "i4", fill=vrange.fills.pattern([1, 2]), eager=False)
        eager = vrange.VolatileArray(1000, "i4", fill=vrange.fills.pattern([1, 2]), eager=True)
        assert np.array_equal(np.asarray(eager), np.tile([1, 2], 500))

    return test_is_refused_on_a_lower_rung


def content_of(shape: Any, dtype: Any, seed: int = 0) -> np.ndarray[Any, Any]:
    """Random bytes, as elements. Floats may be NaN: to be compared as bytes."""
    empty = np.empty(shape, dtype)
    data = np.random.default_rng(seed).bytes(empty.nbytes)
    return np.frombuffer(data, empty.dtype).reshape(empty.shape)


def same(one: Any, other: Any) -> bool:
    a, b = np.asarray(one), np.asarray(other)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def as_buffer(array: np.ndarray[Any, Any]) -> Buffer:
    """The array itself: NumPy's stubs declare it a buffer from Python 3.12 on only (PEP 688)."""
    return cast("Buffer", array)


Counting = Callable[..., vrange.VolatileArray]


def counts(view: np.ndarray[Any, Any]) -> bool:
    """Whether it is a part of what the fixture `counting` makes."""
    return np.array_equal(view, np.arange(view[0], view[0] + len(view), dtype="u8"))


@cache
def build_fills() -> Path:
    """tests/fills/fills.c as a shared library, built once."""
    directory = tempfile.TemporaryDirectory()
    atexit.register(directory.cleanup)
    library = Path(directory.name, "fills.so")
    compiler = os.environ.get("CC", "cc")
    source = HERE.parent / "fills" / "fills.c"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    os.environ["VRANGE_TEST_FILLS"] = str(library)
    return library


def _environment(changes: dict[str, str]) -> dict[str, str]:
    build_fills()
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    # A pool of threads of OpenBLAS in the server would be forked with it.
    fixed = {"PYTHONPATH": path, "VRANGE_RUNG": RUNG, "OPENBLAS_NUM_THREADS": "1"}
    return {**os.environ, **fixed, **changes}


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, str(HERE / "array_child.py"), "--serve"],
        env=_environment({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def stop() -> None:
        server.communicate()  # it ends with its input

    atexit.register(stop)
    return server


def python(
    code: str, timeout: float = 30, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, with the names of array_child.py.

    Where the environment is to be another one, in a new interpreter: it takes ten times as long.
    """
    code = textwrap.dedent(code)
    if environment is not None:
        return subprocess.run(
            [sys.executable, str(HERE / "array_child.py"), code],
            env=_environment(environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    server = _server()
    assert server.stdin
    assert server.stdout
    server.stdin.write(json.dumps({"code": code, "timeout": timeout}) + "\n")
    server.stdin.flush()
    told = json.loads(server.stdout.readline())
    return subprocess.CompletedProcess([], told["status"], told["stdout"], told["stderr"])


def ends_well(code: str, **options: Any) -> str:
    """What the child printed; it must end with status 0 and be silent on stderr."""
    done = python(code, **options)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert not done.stderr, done.stderr
    return done.stdout


def ends_by_sigbus(code: str, **options: Any) -> str:
    """What the child wrote on stderr before SIGBUS ended it. It must have printed "so far"."""
    done = python(code, **options)
    assert done.returncode == -signal.SIGBUS, f"exit {done.returncode}\n{done.stderr}"
    assert done.stdout.strip() == "so far", done.stdout
    return done.stderr
