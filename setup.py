"""Only what pyproject.toml can't say: the extension is built by cffi, as one abi3 library."""

import sys

from setuptools import setup
from setuptools.command.build_ext import build_ext


class BuildExt(build_ext):
    """Lets the compiler take assembly (native/switch_*.S): setuptools knows C's endings only."""

    def build_extensions(self) -> None:
        """Build what there is, with one more ending known."""
        self.compiler.src_extensions.append(".S")
        super().build_extensions()


if sys.platform == "linux":
    setup(
        cffi_modules=["native/build.py:ffi"],
        cmdclass={"build_ext": BuildExt},
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
else:
    setup()  # the package without its native core: see vrange/elsewhere
