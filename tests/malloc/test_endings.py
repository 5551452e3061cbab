"""A program's threads end as they do without vrange's malloc, and the program with them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import vrange.malloc


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("endings") / "endings"
    source = Path(__file__).with_name("endings.c")
    compiler = os.environ.get("CC", "gcc")
    subprocess.run([compiler, "-O1", "-w", source, "-o", to, "-pthread"], check=True)
    return to


def run(program: Path, part: str) -> str:
    environment = {**os.environ, "LD_PRELOAD": vrange.malloc.library()}
    done = subprocess.run(
        [program, part], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("alone", "goodbye\n"),
        ("workers", "worked\nworked\ngoodbye\n"),
        ("child", "worked\ngoodbye\nwaited\n"),
    ],
)
def test_a_process_ends_with_the_last_thread_of_the_program(
    endings: Path, part: str, told: str
) -> None:
    assert run(endings, part) == told


def test_a_thread_is_not_cancelled_within_malloc(endings: Path) -> None:
    run(endings, "cancelled")


def test_what_is_freed_after_a_child_of_vfork_freed_first_is_the_kernel_s(endings: Path) -> None:
    run(endings, "vfork")
