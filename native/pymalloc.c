/* The extension module vrange._pymalloc: the interpreter's allocator trimmed, with the GIL held.
 *
 * Everything under the GIL stands still meanwhile, so it is let go of now and then: what was found in
 * one arena is acted upon before that, and nothing is remembered of it. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <stdlib.h>

#include "os.h"
#include "pymalloc.h"

static PyObject *refusal_or_none(const char *refusal) {
    if (!refusal) Py_RETURN_NONE;
    return PyUnicode_FromString(refusal);
}

static PyObject *allocator(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    const char *(*name)(void);
    *(void **)&name = dlsym(RTLD_DEFAULT, "_PyMem_GetCurrentAllocatorName");
    return refusal_or_none(name ? name() : NULL);
}

static PyObject *watch(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    const char *refusal = pymalloc_is_watching() ? NULL : pymalloc_layout_refusal();
    return refusal_or_none(refusal ? refusal : pymalloc_watch());
}

static PyObject *is_watching(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return PyBool_FromLong(pymalloc_is_watching());
}

static PyObject *trim(PyObject *module, PyObject *args) {
    (void)module;
    int level;
    unsigned long long slice_ns;
    if (!PyArg_ParseTuple(args, "iK", &level, &slice_ns)) return NULL;
    const uint64_t begun = os_now_ns();
    uint64_t slice_begun = begun;
    const int64_t interpreter = pymalloc_interpreter();
    size_t count, others;
    uintptr_t *arenas = pymalloc_arenas_of(interpreter, &count, &others);
    if (!arenas) return PyErr_NoMemory();
    pymalloc_trimmed trimmed = {0};
    for (size_t i = 0; i < count; i++) {
        if (os_now_ns() - slice_begun > slice_ns) {
            Py_BEGIN_ALLOW_THREADS
            os_yield();
            Py_END_ALLOW_THREADS
            slice_begun = os_now_ns();
        }
        if (pymalloc_is_arena_of(interpreter, arenas[i]))
            pymalloc_trim_arena(arenas[i], level, &trimmed);
    }
    free(arenas);
    return Py_BuildValue("(KKKKKKK)", (unsigned long long)trimmed.arenas, (unsigned long long)others,
                         (unsigned long long)trimmed.odd, (unsigned long long)trimmed.pool_bytes,
                         (unsigned long long)trimmed.tail_bytes,
                         (unsigned long long)trimmed.hole_bytes,
                         (unsigned long long)(os_now_ns() - begun));
}

static PyMethodDef functions[] = {
    {"allocator", allocator, METH_NOARGS,
     "allocator(): what the interpreter calls the allocator in use; None where it can't tell."},
    {"watch", watch, METH_NOARGS,
     "watch(): notes every arena from now on. None, or why that is not possible."},
    {"is_watching", is_watching, METH_NOARGS, "is_watching(): whether arenas are noted."},
    {"trim", trim, METH_VARARGS,
     "trim(level, slice_ns): (arenas, arenas of other interpreters, odd ones, bytes of pools, of "
     "tails, of holes, ns). The GIL is let go of at least every `slice_ns`."},
    {0}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                        .m_name = "vrange._pymalloc",
                                        .m_doc = "The interpreter's own allocator, trimmed.",
                                        .m_size = -1, /* one state a process, as the core has */
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit__pymalloc(void) { return PyModule_Create(&definition); }
