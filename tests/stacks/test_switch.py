"""The switch by itself: as built here, by ucontext, and on aarch64 where qemu is."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    ROOT / "tests" / "native" / "switch_test.c",
    *sorted((ROOT / "native/core/stacks").glob("switch_*.[cS]")),
]
OPTIONS = [
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-funwind-tables",
    "-I",
    str(ROOT / "native/core"),
]


def built(compiler: str, folder: Path, *options: str) -> Path:
    program = folder / "switch_test"
    files = [str(source) for source in SOURCES]
    command = [compiler, *OPTIONS, *options, *files, "-o", str(program), "-lpthread"]
    subprocess.run(command, check=True)
    return program


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("optimized", ["-O0", "-O2"])
@pytest.mark.parametrize("how", [(), ("-DVRANGE_SWITCH_UCONTEXT",)])
def test_here(tmp_path: Path, optimized: str, how: tuple[str, ...]) -> None:
    assert run(str(built("cc", tmp_path, optimized, *how))) == "switched"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the control-flow marks are x86's")
def test_with_control_flow_protection(tmp_path: Path) -> None:
    program = built("cc", tmp_path, "-O2", "-fcf-protection=full")
    assert run(str(program)) == "switched"


def test_the_stack_is_not_made_executable(tmp_path: Path) -> None:
    program = built("cc", tmp_path, "-O2")
    headers = run("readelf", "-lW", str(program))
    (stack,) = [line for line in headers.splitlines() if "GNU_STACK" in line]
    assert " RWE " not in stack


def test_aarch64(tmp_path: Path) -> None:
    compiler, machine = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
    if compiler is None or machine is None:
        pytest.skip(reason="needs gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user")
    for options in (("-O2",), ("-O2", "-mbranch-protection=standard")):
        program = built(compiler, tmp_path, "-static", *options)
        assert run(machine, str(program)) == "switched"
