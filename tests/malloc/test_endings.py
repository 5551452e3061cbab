"""A program's threads end as they do without vrange's malloc, and the program with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from preload_support import compiled, start


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("endings.c")
    return compiled(source, tmp_path_factory.mktemp("endings") / "endings")


def output_of(program: Path, part: str) -> bytes:
    done = start(program, part)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("alone", b"goodbye\n"),
        ("workers", b"worked\nworked\ngoodbye\n"),
        ("child", b"worked\ngoodbye\nwaited\n"),
    ],
)
def test_a_process_ends_with_the_last_thread_of_the_program(
    endings: Path, part: str, told: bytes
) -> None:
    assert output_of(endings, part) == told


def test_a_thread_is_not_cancelled_within_malloc(endings: Path) -> None:
    output_of(endings, "cancelled")


def test_what_is_freed_after_a_child_of_vfork_freed_first_is_the_kernel_s(endings: Path) -> None:
    output_of(endings, "vfork")
