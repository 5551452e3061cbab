/* A regenerator that is written in Python and runs inside a touch, only if the user asked for it.
 *
 * This works because the thread that touches the block also runs the regenerator, and PyGILState_Ensure
 * finds out whether it holds the GIL. What can go wrong is documented for users in array.py: if the
 * touching code holds a lock that the regenerator needs, the thread waits for ever; and an exception can't
 * be raised to any caller. So the error state of the interrupted code is saved, Ctrl-C waits until the
 * block is whole, and a failure is retried once before it ends the process. */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "python/module.h"

#define TRIES 2
#define INTERRUPTS_MOST 1000 /* for a user who keeps pressing Ctrl-C */

/* Shows the current exception with its traceback, and clears it. */
static void show_error(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (value && traceback) PyException_SetTraceback(value, traceback);
    PyErr_Display(type, value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* A vrange_regenerate whose context is a callable: (address, offset, bytes). */
static int regenerate_by_python(void *to, size_t offset, size_t bytes, void *context) {
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    bool interrupted = false;
    int interrupts = 0, result = ECANCELED;
    for (int tries = 0; tries < TRIES && result != 0;) {
        PyObject *done = PyObject_CallFunction(context, "KKK", (unsigned long long)(uintptr_t)to,
                                               (unsigned long long)offset, (unsigned long long)bytes);
        if (done) {
            Py_DECREF(done);
            result = 0;
        } else if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) &&
                   interrupts++ < INTERRUPTS_MOST) {
            interrupted = true;
            PyErr_Clear();
        } else if (++tries == TRIES) {
            show_error();
        } else {
            PyErr_Clear();
        }
    }
    PyErr_Restore(type, value, traceback);
    if (interrupted) PyErr_SetInterrupt();
    PyGILState_Release(state);
    return result;
}

static PyObject *python_regenerator(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyLong_FromUnsignedLongLong((unsigned long long)(uintptr_t)&regenerate_by_python);
}

static int add_to(PyObject *module) {
    static PyMethodDef functions[] = {
        {"python_regenerator", python_regenerator, METH_NOARGS,
         "python_regenerator(): the address of a regenerator whose context is a Python callable."},
        {0}};
    return PyModule_AddFunctions(module, functions);
}

__attribute__((constructor)) static void register_function(void) {
    static module_part part = {.add_to = add_to};
    module_register(&part);
}
