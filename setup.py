"""What pyproject.toml can't say: libvrange is built first, then what links to it."""

import runpy
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

LIBRARY = "libvrange.so.0"  # with its version, Python does not take it for a module
MALLOC = "libvrange_malloc.so.0"


class BuildPy(build_py):
    """Puts the dashboards into the wheel, for `vrange dashboards`. A checkout has them already."""

    def run(self) -> None:
        """Copy the package, then the dashboards."""
        super().run()
        if self.editable_mode:
            return
        there = Path(self.build_lib, "vrange", "cli", "dashboards")
        for file in [*Path("dashboards").glob("*.json"), Path("dashboards", "rules.yml")]:
            self.copy_file(str(file), str(there / file.name))


class BuildExt(build_ext):
    """Builds native/core as a shared library beside the extension, which is linked to it."""

    def build_extensions(self) -> None:
        """Build the library, then the extension."""
        # Half of a library's size is debug information. Only a checkout is debugged and profiled.
        self._stripped = [] if self.editable_mode else ["-Wl,--strip-debug"]
        for extension in self.extensions:
            extension.extra_link_args += self._stripped
        # Some interpreters name their own directory here, which elsewhere may be anybody's. And
        # Debian's binds a library's public names within it: vrange's malloc would not notice a
        # program that brings its own.
        unwanted = ("-Wl,-rpath", "-Wl,-Bsymbolic", "-fno-semantic-interposition")
        for tool in ("linker_so", "compiler_so"):
            words = [word for word in getattr(self.compiler, tool) if not word.startswith(unwanted)]
            setattr(self.compiler, tool, words)
        self._build_core(Path(self.get_ext_fullpath("vrange._native")).parent)
        super().build_extensions()

    def _build_core(self, where: Path) -> None:
        how = runpy.run_path("native/build.py")
        self.compiler.src_extensions.append(".S")  # setuptools knows C's endings only
        where.mkdir(parents=True, exist_ok=True)
        for_glibc = self._is_for_glibc()
        if for_glibc:
            how["CORE_OPTIONS"] += how["GLIBC_OPTIONS"]
            how["MALLOC_OPTIONS"] += how["GLIBC_OPTIONS"]
        self._libraries = [self._link(where, LIBRARY, "CORE", how)]
        # malloc/ calls glibc's own malloc by names that only glibc has.
        if for_glibc:
            self._libraries.append(self._link(where, MALLOC, "MALLOC", how))
        for extension in self.extensions:
            extension.library_dirs.append(str(where))

    def _is_for_glibc(self) -> bool:
        """Ask the compiler, which may compile for another machine than this one."""
        with tempfile.TemporaryDirectory() as place:
            source = Path(place, "libc.c")
            source.write_text("#include <features.h>\n#ifndef __GLIBC__\n#error\n#endif\n")
            done = subprocess.run(
                [*self.compiler.compiler_so, "-E", str(source)], capture_output=True, check=False
            )
        return done.returncode == 0

    def _link(self, where: Path, name: str, part: str, how: dict[str, Any]) -> Path:
        def compile_one(source: str) -> list[str]:
            compiled: list[str] = self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=how["INCLUDES"],
                extra_postargs=how[f"{part}_OPTIONS"],
                depends=how["HEADERS"],
            )
            return compiled

        sources = how[f"{part}_SOURCES"]
        with ThreadPoolExecutor(cpu_count()) as pool:
            objects = [each for made in pool.map(compile_one, sources) for each in made]
        library = where / name
        library.unlink(missing_ok=True)
        self.compiler.link_shared_object(
            objects,
            str(library),
            libraries=how[f"{part}_LIBRARIES"],
            library_dirs=[str(where)],
            extra_postargs=[*how[f"{part}_LINK_OPTIONS"], *self._stripped],
        )
        return library

    def copy_extensions_to_source(self) -> None:
        """Copy the libraries, too, where the package is used from its sources."""
        super().copy_extensions_to_source()
        for library in self._libraries:
            there = Path(self.get_ext_fullpath("vrange._native")).with_name(library.name)
            there.unlink(missing_ok=True)  # a process may have the old file mapped
            shutil.copy2(library, there)


def description() -> dict[str, Any]:
    """Return the README as the metadata has it."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    page = runpy.run_path("scripts/project_page.py")["project_page"](
        Path("README.md").read_text("utf-8"),
        project["urls"].get("Source"),
        f"v{project['version']}",
    )
    return {"long_description": page, "long_description_content_type": "text/markdown"}


if sys.platform == "linux":
    setup(
        **description(),
        cffi_modules=["native/build.py:ffi"],
        cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
else:
    # Without its native part: see vrange/_portable
    setup(**description(), cmdclass={"build_py": BuildPy})
