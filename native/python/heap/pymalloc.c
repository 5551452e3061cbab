/* The extension module vrange._pymalloc: trims the interpreter's allocator with the GIL held.
 *
 * Every thread that needs the GIL stands still meanwhile, so the GIL is released now and then. That is safe
 * between two arenas: what was read of one arena is acted upon before, and nothing of it is remembered. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include "python/abi3.h"
#include <dlfcn.h>
#include <stdlib.h>

#include "os/os.h"
#include "heap/pymalloc_arenas.h"
#include "python/heap/pymalloc_hook.h"
#include "python/heap/pymalloc_trim.h"

#define SWEEP_SLICE_NS 2000000u /* the longest time that other threads wait for the GIL: 2 ms */

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

static PyObject *arenas(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    size_t count, others;
    uintptr_t *found = pymalloc_arenas_of(pymalloc_interpreter(), &count, &others);
    if (!found) return PyErr_NoMemory();
    free(found);
    return Py_BuildValue("(nn)", (Py_ssize_t)count, (Py_ssize_t)others);
}

static struct {
    uint64_t others, odd;
} left_alone; /* by the last trim; guarded by the GIL */

/* Returns NULL, or why the list of arenas can't be relied on. */
static const char *trim_arenas(int level, pymalloc_trimmed *trimmed) {
    const char *refusal = pymalloc_watch_refusal();
    if (refusal) return refusal;
    uint64_t slice_begun = os_now_ns();
    const int64_t interpreter = pymalloc_interpreter();
    size_t count, others;
    uintptr_t *arenas = pymalloc_arenas_of(interpreter, &count, &others);
    if (!arenas) return "out of memory: the arenas can't be listed";
    for (size_t i = 0; i < count; i++) {
        if (os_now_ns() - slice_begun > SWEEP_SLICE_NS) {
            Py_BEGIN_ALLOW_THREADS
            os_yield();
            Py_END_ALLOW_THREADS
            slice_begun = os_now_ns();
            /* Other threads ran, and one of them may have replaced the provider. */
            if (pymalloc_watch_refusal()) break;
        }
        if (pymalloc_is_arena_of(interpreter, arenas[i]))
            pymalloc_trim_arena(arenas[i], level, trimmed);
    }
    free(arenas);
    left_alone.others = others;
    left_alone.odd = trimmed->odd;
    return NULL;
}

/* Makes no container that the garbage collector would count: not even a tuple of arguments. */
static PyObject *sweep_or_count(PyObject *number, bool only_counts) {
    const long level = PyLong_AsLong(number);
    if (level == -1 && PyErr_Occurred()) return NULL;
    pymalloc_trimmed trimmed = {.only_counts = only_counts};
    const char *refusal = trim_arenas((int)level, &trimmed);
    if (refusal) return PyUnicode_FromString(refusal);
    return PyLong_FromUnsignedLongLong(trimmed.bytes);
}

static PyObject *sweep(PyObject *module, PyObject *number) {
    (void)module;
    return sweep_or_count(number, false);
}

static PyObject *unused_bytes(PyObject *module, PyObject *number) {
    (void)module;
    return sweep_or_count(number, true);
}

static PyObject *left(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return Py_BuildValue("(KK)", (unsigned long long)left_alone.others,
                         (unsigned long long)left_alone.odd);
}

static PyMethodDef functions[] = {
    {"allocator", allocator, METH_NOARGS,
     "allocator(): the interpreter's name for its current allocator; None if it does not report one."},
    {"watch", watch, METH_NOARGS,
     "watch(): records every arena from now on. Returns None, or why that is impossible."},
    {"arenas", arenas, METH_NOARGS,
     "arenas(): the number of recorded arenas, (this interpreter's, others')."},
    {"sweep", sweep, METH_O,
     "sweep(level): the bytes that were returned, or, as text, why there are none. Releases the GIL at "
     "least every 2 ms. Makes no container."},
    {"unused", unused_bytes, METH_O,
     "unused(level): the bytes that sweep(level) would return. Changes nothing."},
    {"left", left, METH_NOARGS,
     "left(): what the last trim skipped, (arenas of other interpreters, odd ones)."},
    {0}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                        .m_name = "vrange._pymalloc",
                                        .m_doc = "The interpreter's own allocator, trimmed.",
                                        .m_size = -1, /* one state a process, as the core has */
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit__pymalloc(void) {
    PyObject *module = PyModule_Create(&definition);
    if (!module) return NULL;
    if (PyModule_AddIntConstant(module, "TAILS", PYMALLOC_TAILS) == 0 &&
        PyModule_AddIntConstant(module, "HOLES", PYMALLOC_HOLES) == 0 &&
        PyModule_AddStringConstant(module, "LARGE_ARENAS", PYMALLOC_LARGE_ARENAS) == 0)
        return module;
    Py_DECREF(module);
    return NULL;
}
