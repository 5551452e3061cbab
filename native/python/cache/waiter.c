/* Waiters; see waiter.h. */
#include "python/cache/waiter.h"

#include <stddef.h>

#define TRIES 16 /* so many interrupts in a row do not happen */

/* A thread or a task that waits for a flight. `state` and `value` are set, then `wake` is called. `traceback`
 * is what an error had when the flight landed: each waiter that raises it adds its own frames. */
typedef struct {
    PyObject_HEAD
    PyObject *wake, *value, *traceback;
    int state;
} waiter;

static PyTypeObject *waiter_type;

bool is_waiter(PyObject *object) { return Py_TYPE(object) == waiter_type; }

/* ---- telling --------------------------------------------------------------------------------- */

/* A closed event loop raises RuntimeError each time; nothing waits in it any more. -1 with an error set. */
static int wake(waiter *one) {
    PyObject *type = NULL, *error = NULL, *traceback = NULL;
    PyObject *done = NULL;
    for (int tries = 0; !done && tries < TRIES; tries++) {
        done = PyObject_CallNoArgs(one->wake);
        if (done) break;
        if (type) PyErr_Clear();
        else PyErr_Fetch(&type, &error, &traceback);
    }
    const bool is_gone = !done && PyErr_GivenExceptionMatches(type, PyExc_RuntimeError);
    if (type && !is_gone) {
        PyErr_Restore(type, error, traceback);
    } else {
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
        type = NULL;
    }
    Py_XDECREF(done);
    return type ? -1 : 0;
}

int waiters_tell(PyObject *waiters, int state, PyObject *value) {
    if (!waiters) return 0;
    PyObject *type = NULL, *error = NULL, *traceback = NULL;
    PyObject *leaders = state == WAITER_HAS_ERROR ? PyException_GetTraceback(value) : NULL;
    for (Py_ssize_t i = 0; i < PyList_Size(waiters); i++) {
        waiter *one = (waiter *)PyList_GetItem(waiters, i);
        one->value = value ? Py_NewRef(value) : NULL;
        one->traceback = Py_XNewRef(leaders);
        one->state = state;
        if (wake(one) == 0) continue;
        if (type) PyErr_Clear();
        else PyErr_Fetch(&type, &error, &traceback);
    }
    Py_XDECREF(leaders);
    Py_DECREF(waiters);
    if (!type) return 0;
    PyErr_Restore(type, error, traceback);
    return -1;
}

/* ---- waiters --------------------------------------------------------------------------------- */

static PyObject *waiter_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *wakes;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "Waiter(wake)");
    if (!PyArg_ParseTuple(args, "O", &wakes)) return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    waiter *self = (waiter *)allocate(type, 0);
    if (self) self->wake = Py_NewRef(wakes);
    return (PyObject *)self;
}

static PyObject *waiter_result(PyObject *object, PyObject *unused) {
    (void)unused;
    waiter *self = (waiter *)object;
    PyObject *value = self->value;
    self->value = NULL;
    if (!value) Py_RETURN_NONE;
    if (self->state == WAITER_HAS_ERROR) {
        PyObject *traceback = self->traceback;
        self->traceback = NULL;
        PyException_SetTraceback(value, traceback ? traceback : Py_None);
        Py_XDECREF(traceback);
    }
    return value;
}

static PyObject *waiter_get_state(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromLong(((waiter *)object)->state);
}

static const size_t waiter_references[] = {offsetof(waiter, wake), offsetof(waiter, value),
                                           offsetof(waiter, traceback), 0};

static int waiter_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, waiter_references, visit, arg);
}
static int waiter_clear(PyObject *object) { return clear_references(object, waiter_references); }
static void waiter_dealloc(PyObject *object) { free_collected(object, waiter_references); }

int waiter_add_type(PyObject *module) {
    static PyMethodDef methods[] = {
        {"result", waiter_result, METH_NOARGS,
         "The value, or the error with the traceback that the leader gave it, once."},
        {0}};
    static PyGetSetDef members[] = {
        {"state", waiter_get_state, NULL,
         "0 while it waits, HAS_VALUE, HAS_ERROR, HAS_NOTHING or HAS_TEMPLATE.", NULL},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Waiter(wake)\n\n"
                    "A thread or task that waits for a flight. wake() is called when the flight has landed, "
                    "and again if it raises."},
        {Py_tp_new, waiter_new},
        {Py_tp_dealloc, waiter_dealloc},
        {Py_tp_traverse, waiter_traverse},
        {Py_tp_clear, waiter_clear},
        {Py_tp_methods, methods},
        {Py_tp_getset, members},
        {0, NULL}};
    static PyType_Spec spec = {
        .name = "vrange._hit.Waiter",
        .basicsize = sizeof(waiter),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots};
    waiter_type = add_type(module, &spec);
    return waiter_type ? 0 : -1;
}
