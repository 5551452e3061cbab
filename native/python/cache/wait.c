/* Waiting for flights, unless the wait would never end.
 *
 * Each function here is one step for Python code (_cache/waiting.py): the GIL is held, and no code runs inside
 * it that could raise. If a waiter is interrupted, it may at worst stay listed as waiting. Other callers then
 * compute a value for which they could have waited, until the flight has landed. */
#include "python/cache/wait.h"

#include "python/cache/flight.h"
#include "python/cache/waiter.h"

enum {
    WAITS,
    HAS_LANDED,
    NEVER_ENDS,
};

static PyObject *blocked; /* dict, thread to the flight it waits for without running its event loop */
static unsigned long walks;

/* ---- whether a wait would never end ---------------------------------------------------------- */

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

/* Whether the leader of `led` would wait for itself if it waited for `wanted`. `thread` is the thread that
 * would block; 0: none. -1 with an error set. */
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
    else if (PyDict_DelItem(blocked, number) < 0) PyErr_Clear(); /* a wait inside a signal handler removed it */
    Py_DECREF(number);
    return result;
}

static void end(flight *wanted, flight *led, PyObject *by, unsigned long thread) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    remove_one(wanted->waiters, by);
    for (flight *at = led; at; at = at->outer) remove_one(at->waits_for, wanted);
    if (thread) block(thread, NULL);
    PyErr_Clear();
    PyErr_Restore(type, error, traceback);
}

static int begin(flight *wanted, flight *led, PyObject *by, unsigned long thread) {
    if (wanted->landed) return HAS_LANDED;
    const int never = never_ends(wanted, led, thread);
    if (never) return never < 0 ? -1 : NEVER_ENDS;
    int result = append(&wanted->waiters, by);
    for (flight *at = led; at && result == 0; at = at->outer)
        if (!at->landed) result = append(&at->waits_for, (PyObject *)wanted);
    if (result == 0 && thread) result = block(thread, wanted);
    if (result < 0) end(wanted, led, by, thread);
    return result < 0 ? -1 : WAITS;
}

typedef struct {
    flight *wanted, *led;
    PyObject *by;
    unsigned long thread;
} wait_of;

static int parse(PyObject *args, wait_of *to) {
    PyObject *wanted, *led, *by;
    if (!PyArg_ParseTuple(args, "OOOk", &wanted, &led, &by, &to->thread)) return -1;
    if (!is_flight(wanted) || (led != Py_None && !is_flight(led)) || !is_waiter(by)) {
        PyErr_SetString(PyExc_TypeError, "(flight, flight led or None, waiter, thread that blocks or 0)");
        return -1;
    }
    to->wanted = (flight *)wanted;
    to->led = led == Py_None ? NULL : (flight *)led;
    to->by = by;
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

int wait_add_functions(PyObject *module) {
    static PyMethodDef functions[] = {
        {"begin_to_wait", waiting_begin, METH_VARARGS,
         "begin_to_wait(flight, led, waiter, thread): WAITS, HAS_LANDED, or NEVER_ENDS. `thread` is the "
         "thread that blocks; 0: none does."},
        {"end_waiting", waiting_end, METH_VARARGS, "end_waiting(flight, led, waiter, thread)"},
        {"forget_waiting", waiting_after_fork, METH_NOARGS,
         "forget_waiting(): in the child of a fork, no other thread waits."},
        {0}};
    blocked = PyDict_New();
    if (!blocked || PyModule_AddFunctions(module, functions) < 0) return -1;
    const struct {
        const char *name;
        int value;
    } constants[] = {{"WAITS", WAITS},
                     {"HAS_LANDED", HAS_LANDED},
                     {"NEVER_ENDS", NEVER_ENDS},
                     {"HAS_VALUE", WAITER_HAS_VALUE},
                     {"HAS_ERROR", WAITER_HAS_ERROR},
                     {"HAS_NOTHING", WAITER_HAS_NOTHING},
                     {"HAS_TEMPLATE", WAITER_HAS_TEMPLATE}};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0) return -1;
    return 0;
}
