"""Builds vrange._native and its siblings, one library, from the files beside this one.

The declarations cffi needs are the part of vrange.h between its two marks, so that nothing is said
twice.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
BEGIN, END = "/* cffi: begin */", "/* cffi: end */"

header = (HERE / "vrange.h").read_text()
declarations = header[header.index(BEGIN) + len(BEGIN) : header.index(END)]

ffi = FFI()
ffi.cdef(declarations)
ffi.set_source(
    "vrange._native",
    '#include "vrange.h"',
    sources=sorted(
        path.relative_to(HERE.parent).as_posix()
        for pattern in ("*.c", "*.S")
        for path in HERE.glob(pattern)
    ),
    include_dirs=[str(HERE)],
    depends=sorted(path.relative_to(HERE.parent).as_posix() for path in HERE.glob("*.h")),
    # cffi's own choice of limited API is too old for what lease.c calls, and gcc would only warn
    # about the function it then guesses.
    define_macros=[("Py_LIMITED_API", "0x030b0000")],
    extra_compile_args=[
        "-std=c11",
        "-O2",
        "-g",
        # A handler must find its thread-local words without the allocation a first look may take.
        "-ftls-model=initial-exec",
        "-Werror=implicit-function-declaration",
    ],
    libraries=["pthread", "z"],
)
