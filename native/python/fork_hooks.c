/* The hooks around os.fork(), with which the interpreter finds no thread of vrange to warn of.
 *
 * CPython 3.12, and 3.14 and later, count the threads when fork() has returned in the parent, before the
 * parent's hooks. 3.13 counts after them. There the threads start again a moment later: a pending call runs in
 * the main thread as soon as it is back in Python code. A fork in another thread may find the main thread
 * blocked for long, and the reserve matters more than a warning: then the threads go on. */
#define _GNU_SOURCE
#include "python/hit.h"

#include <stdbool.h>

#include "os/os_thread.h"
#include "vrange.h"

static bool counts_after_hooks(void) { return Py_Version >> 16 == 0x030d; }

static bool is_announced(void) { return !counts_after_hooks() || os_is_main_thread(); }

static PyObject *begins(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    if (is_announced()) vrange_fork_begins();
    Py_RETURN_NONE;
}

static int end_later(void *unused) {
    (void)unused;
    vrange_fork_ended();
    return 0;
}

static PyObject *ended(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    if (!is_announced()) Py_RETURN_NONE;
    if (!counts_after_hooks() || Py_AddPendingCall(end_later, NULL) < 0) vrange_fork_ended();
    Py_RETURN_NONE;
}

static int add_to(PyObject *module) {
    static PyMethodDef functions[] = {
        {"fork_begins", begins, METH_NOARGS, "fork_begins(): call before os.fork()."},
        {"fork_ended", ended, METH_NOARGS, "fork_ended(): call after os.fork(), in the parent."},
        {0}};
    return PyModule_AddFunctions(module, functions);
}

__attribute__((constructor)) static void register_functions(void) { hit_register(add_to); }
