/* What a thread of vrange's own runs, and how it rests. Memory may be short in the program or in the child of
 * a fork that limits itself before it executes another program, and then a Python function can't even be
 * called. The program would see an error that is not its own, and the work would end for good. So the thread
 * rests and calls the function again.
 *
 * This is a function in C because one in Python takes memory for its frame before it could catch anything. */
#include <stdatomic.h>

#include "os/os.h"
#include "python/module.h"

#define REST_NS 1000000000ull

static _Atomic uint32_t rests_are_over; /* 1: all threads of vrange's end for a fork */

static void rest(uint64_t nanoseconds) {
    const uint64_t until = os_now_ns() + nanoseconds;
    Py_BEGIN_ALLOW_THREADS;
    for (uint64_t now = os_now_ns(); now < until && !atomic_load(&rests_are_over); now = os_now_ns())
        os_wait(&rests_are_over, 0, until - now);
    Py_END_ALLOW_THREADS;
}

/* Not time.sleep, which nothing ends, and not a lock's acquire, which makes a tuple for its arguments: the
 * garbage collector would count it. */
static PyObject *rest_for(PyObject *module, PyObject *seconds) {
    (void)module;
    const double length = PyFloat_AsDouble(seconds);
    if (length == -1 && PyErr_Occurred()) return NULL;
    if (length > 0) rest((uint64_t)(length * 1e9));
    Py_RETURN_NONE;
}

static PyObject *end_rests(PyObject *module, PyObject *are_over) {
    (void)module;
    const int now = PyObject_IsTrue(are_over);
    if (now < 0) return NULL;
    atomic_store(&rests_are_over, (uint32_t)now);
    if (now) os_wake(&rests_are_over);
    Py_RETURN_NONE;
}

static PyObject *run(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *function;
    int rests_first;
    if (!PyArg_ParseTuple(args, "Op", &function, &rests_first)) return NULL;
    if (rests_first) rest(REST_NS);
    for (;;) {
        PyObject *result = PyObject_CallNoArgs(function);
        if (result || !PyErr_ExceptionMatches(PyExc_MemoryError)) return result;
        PyErr_Clear();
        rest(REST_NS);
    }
}

static int add_to(PyObject *module) {
    static PyMethodDef functions[] = {
        {"run_in_background", run, METH_VARARGS,
         "run_in_background(function, rests_first): call it, and again whenever it ends in MemoryError."},
        {"rest", rest_for, METH_O, "rest(seconds): sleep, unless all rests are over."},
        {"end_rests", end_rests, METH_O, "end_rests(are_over): end them and let none begin, or let them."},
        {0}};
    return PyModule_AddFunctions(module, functions);
}

__attribute__((constructor)) static void register_functions(void) {
    static module_part part = {.add_to = add_to};
    module_register(&part);
}
