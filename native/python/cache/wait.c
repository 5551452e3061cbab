/* Waiting for flights, but not where the wait would never end.
 *
 * Each function here is one step for Python code (singleflight.py): the GIL is held, and nothing that could
 * raise runs in the midst of it. A waiter that was interrupted leaves behind, at worst, that it still waits;
 * others then compute where they could have waited, until the flight has landed. */
#include "python/cache/flight.h"

#include <stddef.h>

#define TRIES 16 /* an interrupt each time is none */

enum { WAITS, HAS_LANDED, NEVER_ENDS };

/* A thread or a task that waits for a flight. `state` and `value` are set, then `wake` is called. */
typedef struct {
    PyObject_HEAD
    PyObject *wake, *value;
    int state;
} waiter;

static PyTypeObject *waiter_type;
static PyObject *blocked; /* dict, thread to the flight it waits for without running its event loop */
static unsigned long walks;

/* ---- telling --------------------------------------------------------------------------------- */

/* A loop that is closed has nobody waiting any more: that raises each time. -1 with an error set. */
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

int flight_tell(flight *landed, int state, PyObject *value) {
    PyObject *waiters = landed->waiters;
    landed->waiters = NULL;
    Py_CLEAR(landed->waits_for);
    if (!waiters) return 0;
    PyObject *type = NULL, *error = NULL, *traceback = NULL;
    for (Py_ssize_t i = 0; i < PyList_Size(waiters); i++) {
        waiter *one = (waiter *)PyList_GetItem(waiters, i);
        one->value = value ? Py_NewRef(value) : NULL;
        one->state = state;
        if (wake(one) == 0) continue;
        if (type) PyErr_Clear();
        else PyErr_Fetch(&type, &error, &traceback);
    }
    Py_DECREF(waiters);
    if (!type) return 0;
    PyErr_Restore(type, error, traceback);
    return -1;
}

/* ---- whether it would be for ever ------------------------------------------------------------ */

typedef struct {
    flight **flights;
    size_t count, room;
} pile;

static int push(pile *to, flight *one, unsigned long walk) {
    if (one->seen == walk || one->landed) return 0;
    one->seen = walk;
    if (to->count == to->room) {
        const size_t room = to->room ? 2 * to->room : 16;
        flight **more = PyMem_Realloc(to->flights, room * sizeof *more);
        if (!more) {
            PyErr_NoMemory();
            return -1;
        }
        to->flights = more;
        to->room = room;
    }
    to->flights[to->count++] = one;
    return 0;
}

/* The flights that have to land before this one can. */
static int push_needed(pile *to, const flight *one, unsigned long walk) {
    for (Py_ssize_t i = 0; one->waits_for && i < PyList_Size(one->waits_for); i++)
        if (push(to, (flight *)PyList_GetItem(one->waits_for, i), walk) < 0) return -1;
    PyObject *thread = PyLong_FromUnsignedLong(one->thread);
    PyObject *its = thread ? PyDict_GetItemWithError(blocked, thread) : NULL;
    Py_XDECREF(thread);
    if (!its) return PyErr_Occurred() ? -1 : 0;
    return push(to, (flight *)its, walk);
}

/* Whether the leader of `led`, in a thread that blocks unless that is 0, would wait for itself if it waited for
 * `wanted`. -1 with an error set. */
static int never_ends(flight *wanted, flight *led, unsigned long thread) {
    const unsigned long walk = ++walks;
    for (flight *at = led; at; at = at->outer) at->led = walk;
    pile pending = {0};
    int result = push(&pending, wanted, walk);
    while (result == 0 && pending.count) {
        const flight *one = pending.flights[--pending.count];
        if (one->led == walk || (thread && one->thread == thread)) result = 1;
        else result = push_needed(&pending, one, walk);
    }
    PyMem_Free(pending.flights);
    return result;
}

/* ---- waiting --------------------------------------------------------------------------------- */

static int append(PyObject **list, PyObject *item) {
    if (!*list) *list = PyList_New(0);
    return *list ? PyList_Append(*list, item) : -1;
}

static void remove_one(PyObject *list, const void *item) {
    for (Py_ssize_t i = list ? PyList_Size(list) : 0; i-- > 0;) {
        if (PyList_GetItem(list, i) != item) continue;
        PyList_SetSlice(list, i, i + 1, NULL);
        return;
    }
}

static int block(unsigned long thread, flight *wanted) {
    PyObject *number = PyLong_FromUnsignedLong(thread);
    if (!number) return -1;
    int result = 0;
    if (wanted) result = PyDict_SetItem(blocked, number, (PyObject *)wanted);
    else if (PyDict_DelItem(blocked, number) < 0) PyErr_Clear(); /* an interrupt's own wait ended it */
    Py_DECREF(number);
    return result;
}

static void end(flight *wanted, flight *led, waiter *by, unsigned long thread) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    remove_one(wanted->waiters, by);
    for (flight *at = led; at; at = at->outer) remove_one(at->waits_for, wanted);
    if (thread) block(thread, NULL);
    PyErr_Clear();
    PyErr_Restore(type, error, traceback);
}

static int begin(flight *wanted, flight *led, waiter *by, unsigned long thread) {
    if (wanted->landed) return HAS_LANDED;
    const int never = never_ends(wanted, led, thread);
    if (never) return never < 0 ? -1 : NEVER_ENDS;
    int result = append(&wanted->waiters, (PyObject *)by);
    for (flight *at = led; at && result == 0; at = at->outer)
        if (!at->landed) result = append(&at->waits_for, (PyObject *)wanted);
    if (result == 0 && thread) result = block(thread, wanted);
    if (result < 0) end(wanted, led, by, thread);
    return result < 0 ? -1 : WAITS;
}

typedef struct {
    flight *wanted, *led;
    waiter *by;
    unsigned long thread;
} wait_of;

static int parse(PyObject *args, wait_of *to) {
    PyObject *wanted, *led, *by;
    if (!PyArg_ParseTuple(args, "OOOk", &wanted, &led, &by, &to->thread)) return -1;
    if (!is_flight(wanted) || (led != Py_None && !is_flight(led)) || Py_TYPE(by) != waiter_type) {
        PyErr_SetString(PyExc_TypeError, "(flight, flight led or None, waiter, thread that blocks or 0)");
        return -1;
    }
    to->wanted = (flight *)wanted;
    to->led = led == Py_None ? NULL : (flight *)led;
    to->by = (waiter *)by;
    return 0;
}

static PyObject *waiting_begin(PyObject *module, PyObject *args) {
    (void)module;
    wait_of wait;
    if (parse(args, &wait) < 0) return NULL;
    const int result = begin(wait.wanted, wait.led, wait.by, wait.thread);
    return result < 0 ? NULL : PyLong_FromLong(result);
}

static PyObject *waiting_end(PyObject *module, PyObject *args) {
    (void)module;
    wait_of wait;
    if (parse(args, &wait) < 0) return NULL;
    end(wait.wanted, wait.led, wait.by, wait.thread);
    Py_RETURN_NONE;
}

static PyObject *waiting_after_fork(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    PyDict_Clear(blocked);
    Py_RETURN_NONE;
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
    return value ? value : Py_NewRef(Py_None);
}

static PyObject *waiter_get_state(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromLong(((waiter *)object)->state);
}

static const size_t waiter_references[] = {offsetof(waiter, wake), offsetof(waiter, value), 0};

static int waiter_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, waiter_references, visit, arg);
}
static int waiter_clear(PyObject *object) { return clear_references(object, waiter_references); }
static void waiter_dealloc(PyObject *object) { free_collected(object, waiter_references); }

static int add_waiter_type(PyObject *module) {
    static PyMethodDef methods[] = {
        {"result", waiter_result, METH_NOARGS, "The value or the error, once."}, {0}};
    static PyGetSetDef members[] = {
        {"state", waiter_get_state, NULL, "WAITS, HAS_VALUE, HAS_ERROR or HAS_NOTHING.", NULL}, {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Waiter(wake)\n\nA thread or task that waits for a flight. wake() is called when that has landed; more "
                    "than once, where it raises."},
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

int wait_add_types(PyObject *module) {
    static PyMethodDef functions[] = {
        {"begin_to_wait", waiting_begin, METH_VARARGS,
         "begin_to_wait(flight, led, waiter, thread): WAITS, HAS_LANDED, or NEVER_ENDS where it would be "
         "for ever. `thread` blocks; 0: none does."},
        {"end_waiting", waiting_end, METH_VARARGS, "end_waiting(flight, led, waiter, thread)"},
        {"forget_waiting", waiting_after_fork, METH_NOARGS, "No other thread waits any more."},
        {0}};
    blocked = PyDict_New();
    if (!blocked || add_waiter_type(module) < 0 || PyModule_AddFunctions(module, functions) < 0) return -1;
    const struct {
        const char *name;
        int value;
    } constants[] = {{"WAITS", WAITS},
                     {"HAS_LANDED", HAS_LANDED},
                     {"NEVER_ENDS", NEVER_ENDS},
                     {"HAS_VALUE", WAITER_HAS_VALUE},
                     {"HAS_ERROR", WAITER_HAS_ERROR},
                     {"HAS_NOTHING", WAITER_HAS_NOTHING}};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0) return -1;
    return 0;
}
