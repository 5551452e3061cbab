"""What the native part is built from, and how: libvrange, and what links to it.

`libvrange.so.0` is everything below core/. No Python is in it, so that any program can preload it.
`libvrange_malloc.so.0` is everything below malloc/. It is preloaded, and brings the library along.
The extension module vrange._native holds the CPython types below python/ and what cffi makes of
vrange.h. The two lie side by side in the package, and the extension finds the library beside
itself. A process that preloaded the library therefore has one core, not two: the dynamic linker
takes a library that is loaded under this name already.

The declarations that cffi needs are what vrange.h and the layout of the stats segment have between
two marks, so that nothing is said twice. setup.py builds both.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
BEGIN, END = "/* cffi: begin */", "/* cffi: end */"


def _below(folder: str, *endings: str) -> list[str]:
    return sorted(
        path.relative_to(HERE.parent).as_posix()
        for ending in endings
        for path in (HERE / folder).rglob(f"*{ending}")
    )


INCLUDES = [str(HERE), str(HERE / "core")]
CORE_SOURCES = _below("core", ".c", ".S")
HEADERS = _below(".", ".h")
# gcc before 14 only warns of these.
ERRORS = ["-Werror=implicit-function-declaration", "-Werror=incompatible-pointer-types"]
CORE_OPTIONS = [
    "-std=c11",
    "-O2",
    "-g",
    "-fPIC",
    "-fvisibility=hidden",
    # Calls of vrange_ functions within the core stay within it, as if they were hidden.
    "-fno-semantic-interposition",
    "-Wall",
    "-Wextra",
    "-Wno-missing-field-initializers",
    *ERRORS,
]
# A signal handler must find its thread-local words without the allocation that glibc may make at a
# thread's first look. musl makes it at dlopen() already, and refuses to load a library that is so
# compiled.
GLIBC_OPTIONS = ["-ftls-model=initial-exec"]
CORE_LINK_OPTIONS = ["-Wl,-soname,libvrange.so.0", "-Wl,-Bsymbolic", "-Wl,-z,defs"]
CORE_LIBRARIES = ["pthread", "dl"]

MALLOC_SOURCES = _below("malloc", ".c")
# The compiler must not take malloc's own code for calls that it can replace, nor call a function
# here that the program may bring itself.
MALLOC_OPTIONS = [*CORE_OPTIONS, "-fno-builtin", "-fsemantic-interposition", "-fno-plt"]
# now: no call of a function is resolved inside malloc.
MALLOC_LINK_OPTIONS = [
    "-Wl,-soname,libvrange_malloc.so.0",
    "-Wl,-z,defs",
    "-Wl,-z,now",
    "-Wl,-rpath,$ORIGIN",
]
MALLOC_LIBRARIES = [":libvrange.so.0", "dl"]

LAYOUT = "core/counters/segment_layout.h"


def _declarations(header: str) -> str:
    text = (HERE / header).read_text()
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


ffi = FFI()
ffi.cdef(_declarations("vrange.h") + "static char *const VRANGE_REQUEST_ENDING;")
# cffi knows no atomic types. The segment is read from copies, and an atomic word is laid out like
# an ordinary one.
ffi.cdef(_declarations(LAYOUT).replace("_Atomic ", "") + "static char *const SEGMENT_MAGIC;")
# What the core calls when another process has made a request (_counters/requests.py).
ffi.cdef('extern "Python" void answer_request(void);')
ffi.set_source(
    "vrange._native",
    f"""
    #include <stdatomic.h>
    #include "vrange.h"
    #define _Atomic
    #include "{LAYOUT.removeprefix("core/")}"
    #undef _Atomic
    """,
    sources=_below("python", ".c"),
    include_dirs=INCLUDES,
    depends=HEADERS,
    # cffi's own choice of limited API is too old for what the types call, and gcc would only warn
    # about the function that it then guesses.
    define_macros=[("Py_LIMITED_API", "0x030b0000")],
    extra_compile_args=[
        "-std=c11",
        "-O2",
        "-g",
        "-fvisibility=hidden",
        *ERRORS,
    ],
    libraries=[":libvrange.so.0"],
    # $ORIGIN: beside the extension itself, wherever the package lies.
    extra_link_args=["-Wl,-rpath,$ORIGIN"],
)
