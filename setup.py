"""Only what pyproject.toml can't say: the extension is built by cffi, as one abi3 library."""

from setuptools import setup

setup(
    cffi_modules=["native/build.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
