/* How long computing a value took, and so what losing it would cost.
 *
 * A computation that never waited costs its processor time. If the time in which other threads ran counted,
 * its value would seem expensive, and would be kept while more expensive ones are evicted. A computation that
 * waited, for a disk or a server, costs all the time that passed. */
#include "python/cache/stopwatch.h"

#include "os/os.h"

#define SOON_NS 20000 /* a smaller difference is not looked into: that needs a system call */

stopwatch stopwatch_start(void) {
    stopwatch watch = {.waits = os_thread_waits(), .cpu_ns = os_thread_cpu_ns()};
    watch.started_ns = os_now_ns();
    return watch;
}

time_taken stopwatch_read(const stopwatch *watch) {
    time_taken took = {.passed_ns = os_now_ns() - watch->started_ns};
    const uint64_t cpu = os_thread_cpu_ns() - watch->cpu_ns;
    took.cost_ns = took.passed_ns;
    if (took.passed_ns > cpu + SOON_NS && os_thread_waits() == watch->waits) took.cost_ns = cpu;
    if (took.cost_ns == 0) took.cost_ns = 1; /* 0 means unknown */
    return took;
}

typedef struct {
    PyObject_HEAD
    stopwatch watch;
} stopwatch_object;

static PyObject *stopwatch_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    if (PyTuple_Size(args) || (kwargs && PyDict_Size(kwargs)))
        return PyErr_Format(PyExc_TypeError, "Stopwatch()");
    stopwatch_object *self = PyObject_New(stopwatch_object, type);
    if (self) self->watch = stopwatch_start();
    return (PyObject *)self;
}

static PyObject *stopwatch_stop(PyObject *object, PyObject *unused) {
    (void)unused;
    const time_taken took = stopwatch_read(&((stopwatch_object *)object)->watch);
    return Py_BuildValue("KK", (unsigned long long)took.passed_ns, (unsigned long long)took.cost_ns);
}

static void stopwatch_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_Free(object);
    Py_DECREF(type);
}

int stopwatch_add_type(PyObject *module) {
    static PyMethodDef methods[] = {
        {"stop", stopwatch_stop, METH_NOARGS, "(time passed, cost), in nanoseconds; cost is at least 1."},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Runs from when it is made, for the thread that made it."},
        {Py_tp_new, stopwatch_new},
        {Py_tp_dealloc, stopwatch_dealloc},
        {Py_tp_methods, methods},
        {0, NULL}};
    static PyType_Spec spec = {.name = "vrange._hit.Stopwatch",
                               .basicsize = sizeof(stopwatch_object),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                               .slots = slots};
    return add_type(module, &spec) ? 0 : -1;
}
