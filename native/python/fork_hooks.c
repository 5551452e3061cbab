/* The hooks around os.fork(), with which the interpreter finds no thread of vrange to warn of.
 *
 * CPython 3.12, and 3.14 and later, count the threads when fork() has returned in the parent, before the
 * parent's hooks. 3.13 counts after them. There the threads start again a moment later: a pending call runs in
 * the main thread as soon as it is back in Python code. A fork in another thread may find the main thread
 * blocked for long, and the reserve matters more than a warning: then the threads go on. */
#define _GNU_SOURCE
#include "python/module.h"

#include <stdbool.h>

#include "os/os_thread.h"
#include "vrange.h"

static PyObject *pause_python, *resume_python; /* what does the same for vrange's threads in Python */

static PyObject *around_forks(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *pause, *resume;
    if (!PyArg_ParseTuple(args, "OO", &pause, &resume)) return NULL;
    pause_python = Py_NewRef(pause); /* for good: there is one module that calls this */
    resume_python = Py_NewRef(resume);
    Py_RETURN_NONE;
}

/* Nobody can handle an exception here, and the fork is not to fail by it. */
static void call(PyObject *function) {
    PyObject *done = function ? PyObject_CallNoArgs(function) : NULL;
    if (function && !done) PyErr_WriteUnraisable(function);
    Py_XDECREF(done);
}

static bool counts_after_hooks(void) { return Py_Version >> 16 == 0x030d; }

static bool is_announced(void) { return !counts_after_hooks() || os_is_main_thread(); }

static PyObject *begins(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    if (!is_announced()) Py_RETURN_NONE;
    call(pause_python);
    vrange_fork_begins();
    Py_RETURN_NONE;
}

/* Whether a frame has called the code that runs, directly or not. */
static bool has_called(PyObject *frame) {
    PyObject *at = (PyObject *)PyEval_GetFrame();
    Py_XINCREF(at);
    bool is_inside = false;
    while (at && at != Py_None && at != frame) {
        PyObject *back = PyObject_GetAttrString(at, "f_back");
        Py_DECREF(at);
        at = back;
        is_inside = at == frame;
    }
    Py_XDECREF(at);
    PyErr_Clear();
    return is_inside;
}

static void end_now(void) {
    vrange_fork_ended();
    call(resume_python);
}

/* Other hooks in Python, as logging has one, run pending calls before the threads are counted. */
static int end_later(void *forking) {
    if (has_called(forking) && Py_AddPendingCall(end_later, forking) == 0) return 0;
    Py_DECREF((PyObject *)forking);
    end_now();
    return 0;
}

static PyObject *ended(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    if (!is_announced()) Py_RETURN_NONE;
    PyObject *forking = counts_after_hooks() ? (PyObject *)PyEval_GetFrame() : NULL; /* it called os.fork() */
    Py_XINCREF(forking);
    if (!forking || Py_AddPendingCall(end_later, forking) < 0) {
        Py_XDECREF(forking);
        end_now();
    }
    Py_RETURN_NONE;
}

static int add_to(PyObject *module) {
    static PyMethodDef functions[] = {
        {"fork_begins", begins, METH_NOARGS, "fork_begins(): call before os.fork()."},
        {"fork_ended", ended, METH_NOARGS, "fork_ended(): call after os.fork(), in the parent."},
        {"around_forks", around_forks, METH_VARARGS,
         "around_forks(pause, resume): what fork_begins() and the end of a fork are to call, too."},
        {0}};
    return PyModule_AddFunctions(module, functions);
}

__attribute__((constructor)) static void register_functions(void) {
    static module_part part = {.add_to = add_to};
    module_register(&part);
}
