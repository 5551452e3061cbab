"""The other platforms that vrange is for: what can be said of them from here."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "native"
OPTIONS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"]
INCLUDES = [f"-I{NATIVE}", f"-I{NATIVE / 'core'}"]


def compile_the_core(compiler: str, *options: str) -> None:
    """The core, which needs no interpreter's headers. scripts/release builds all of the wheels."""
    core = sorted((NATIVE / "core").rglob("*.c"))
    assert len(core) > 20
    subprocess.run(
        [compiler, *OPTIONS, *INCLUDES, *options, "-fsyntax-only", *core], check=True, timeout=110
    )


def test_the_core_compiles_for_aarch64() -> None:
    """See also test_switch.py."""
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip(reason="needs gcc-aarch64-linux-gnu and libc6-dev-arm64-cross")
    compile_the_core("aarch64-linux-gnu-gcc")


def test_the_core_compiles_with_musl(tmp_path: Path) -> None:
    if shutil.which("musl-gcc") is None:
        pytest.skip(reason="needs musl-tools")
    # The headers of the kernel and of zlib, which are the same for each C library.
    here = Path("/usr/include")
    ours = here / f"{platform.machine()}-linux-gnu"
    for name in ("linux", "asm-generic", "zlib.h", "zconf.h"):
        os.symlink(here / name, tmp_path / name)
    os.symlink(ours / "asm", tmp_path / "asm")
    compile_the_core("musl-gcc", "-idirafter", str(tmp_path))
