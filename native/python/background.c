/* What a thread of vrange's own runs. Memory may be short in the program or in the child of a fork that
 * limits itself before it executes another program, and then a Python function can't even be called. The
 * program would see an error that is not its own, and the work would end for good. So the thread rests and
 * calls the function again.
 *
 * This is a function in C because one in Python takes memory for its frame before it could catch anything. */
#include "os/os.h"
#include "python/module.h"

#define REST_NS 1000000000ull

static void rest(void) {
    Py_BEGIN_ALLOW_THREADS;
    os_sleep_ns(REST_NS);
    Py_END_ALLOW_THREADS;
}

static PyObject *run(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *function;
    int rests_first;
    if (!PyArg_ParseTuple(args, "Op", &function, &rests_first)) return NULL;
    if (rests_first) rest();
    for (;;) {
        PyObject *result = PyObject_CallNoArgs(function);
        if (result || !PyErr_ExceptionMatches(PyExc_MemoryError)) return result;
        PyErr_Clear();
        rest();
    }
}

static int add_to(PyObject *module) {
    static PyMethodDef functions[] = {
        {"run_in_background", run, METH_VARARGS,
         "run_in_background(function, rests_first): call it, and again whenever it ends in MemoryError."},
        {0}};
    return PyModule_AddFunctions(module, functions);
}

__attribute__((constructor)) static void register_functions(void) {
    static module_part part = {.add_to = add_to};
    module_register(&part);
}
