/* Flights: one computation per key at a time.
 *
 * A flight is one computation under way. The key's entry refers to it until it lands or is called off. So
 * other callers find it by the same lookup that would find the value, and the leader reaches the entry
 * without a second lookup. A flight never holds the value, because contexts that live longer refer to it.
 * Python waits (_cache/waiting.py). Flights begin and land here, in C, where no signal handler can
 * interrupt. */
#include "python/cache/flight.h"

#include <stddef.h>
#include <structmember.h>

#include "os/os.h"
#include "python/cache/limbo.h"
#include "python/cache/waiter.h"

static PyTypeObject *flight_type;
static PyObject *threading_module, *get_ident_name;
static PyObject *copy_value; /* called with a value: a copy of it that shares nothing that can be changed */

bool is_flight(PyObject *object) { return Py_TYPE(object) == flight_type; }

/* ---- beginning and ending -------------------------------------------------------------------- */

/* Calls threading.get_ident(), which gevent replaces to return the greenlet's. 0 with an error set. */
static unsigned long this_thread(void) {
    PyObject *ident = PyObject_CallMethodObjArgs(threading_module, get_ident_name, NULL);
    const unsigned long thread = ident ? PyLong_AsUnsignedLongMask(ident) : 0;
    Py_XDECREF(ident);
    return thread;
}

static flight *make(cache_core *self, key_hash hash, int outcome, PyObject *loop) {
    PyObject *outer = PyObject_CallNoArgs(self->get_led);
    const unsigned long thread = outer ? this_thread() : 0;
    allocfunc allocate = (allocfunc)PyType_GetSlot(flight_type, Py_tp_alloc);
    flight *f = thread && !PyErr_Occurred() ? (flight *)allocate(flight_type, 0) : NULL;
    if (f) {
        f->asked_ns = os_now_ns();
        f->outcome = outcome;
        f->hash = hash;
        f->thread = thread;
        f->loop = Py_XNewRef(loop);
        if (is_flight(outer)) f->outer = (flight *)Py_NewRef(outer);
    }
    Py_XDECREF(outer);
    return f;
}

flight *flight_begin(cache_core *self, PyObject *key, key_hash hash, uint32_t version, int outcome,
                     PyObject *loop) {
    flight *f = make(self, hash, outcome, loop);
    if (!f || self->index.version != version || self->closed) return f; /* look again */
    const entry_no number = index_add(&self->index, key, hash);
    if (!number) {
        Py_DECREF((PyObject *)f);
        return (flight *)PyErr_NoMemory();
    }
    entry *e = entry_at(&self->index, number);
    e->place = PLACE_FLIGHT;
    e->form = Py_NewRef((PyObject *)f);
    entry_refers(&self->index, number, e->form);
    f->core = (cache_core *)Py_NewRef((PyObject *)self);
    f->number = number;
    f->following = self->flights;
    if (self->flights) self->flights->previous = f;
    self->flights = f;
    self->flight_count++;
    return f;
}

void flight_detach(flight *f) {
    cache_core *self = f->core;
    if (f->following) f->following->previous = f->previous;
    if (f->previous) f->previous->following = f->following;
    else self->flights = f->following;
    f->previous = f->following = NULL;
    f->number = 0;
    self->flight_count--;
}

void flight_call_off(cache_core *self, entry_no number) {
    flight_detach((flight *)entry_at(&self->index, number)->form);
    index_bury(&self->index, number); /* with its reference to the flight */
}

/* ---- the innermost flight of a context ------------------------------------------------------- */

static int set_led(cache_core *self, PyObject *to) {
    PyObject *token = PyObject_CallFunctionObjArgs(self->set_led, to, NULL);
    Py_XDECREF(token);
    return token ? 0 : -1;
}

int flight_enter(flight *f) { return set_led(f->core, (PyObject *)f); }

/* An error is ignored: the flight lands now, and a landed flight does no harm in a context. */
void flight_leave(flight *f) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    if (set_led(f->core, f->outer ? (PyObject *)f->outer : Py_None) < 0) PyErr_Clear();
    PyErr_Restore(type, error, traceback);
}

/* ---- landing --------------------------------------------------------------------------------- */

/* Waiters share an Exception. A KeyboardInterrupt or a cancellation is the leader's own. */
static PyObject *shared_error(PyObject *type, PyObject *error) {
    return type && error && PyErr_GivenExceptionMatches(type, PyExc_Exception) ? error : NULL;
}

static int tell(flight *f, int state, PyObject *value) {
    PyObject *waiters = f->waiters;
    f->waiters = NULL;
    Py_CLEAR(f->waits_for);
    return waiters_tell(waiters, state, value);
}

/* Copies the value for the waiters before the leader can change it, if each is to get a value of its own and
 * none was stored from which they could decode it. NULL: they compute. An error that is set is the leader's. */
static PyObject *template_of(const flight *f, PyObject *value) {
    if (!f->waiters || !copy_value) return NULL;
    PyObject *copy = PyObject_CallFunctionObjArgs(copy_value, value, NULL);
    if (!copy && PyErr_ExceptionMatches(PyExc_Exception)) PyErr_Clear();
    return copy;
}

typedef struct {
    int state;
    PyObject *shared; /* a reference, or NULL */
} outcome;

static outcome outcome_of(const flight *f, PyObject *value, PyObject *type, PyObject *error) {
    if (!value) {
        PyObject *shared = shared_error(type, error);
        return (outcome){shared ? WAITER_HAS_ERROR : WAITER_HAS_NOTHING, Py_XNewRef(shared)};
    }
    if (f->is_private) return (outcome){WAITER_HAS_NOTHING, NULL};
    if (!f->core || !f->core->copies) return (outcome){WAITER_HAS_VALUE, Py_NewRef(value)};
    PyObject *template = template_of(f, value);
    return (outcome){template ? WAITER_HAS_TEMPLATE : WAITER_HAS_NOTHING, template};
}

int flight_land(flight *f, PyObject *value) {
    if (f->landed) return 0;
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    if (type) {
        PyErr_NormalizeException(&type, &error, &traceback);
        if (traceback && error) PyException_SetTraceback(error, traceback);
    }
    const outcome now = outcome_of(f, value, type, error);
    int told = PyErr_Occurred() ? -1 : 0;
    cache_core *self = f->core;
    if (!f->landed) { /* else it was abandoned while the value was copied */
        if (f->number) flight_call_off(self, f->number);
        f->core = NULL;
        f->landed = 1;
        Py_CLEAR(f->loop);
        if (told < 0) { /* the leader was interrupted: it must not keep the others from being told */
            PyObject *its_type, *its_error, *its_traceback;
            PyErr_Fetch(&its_type, &its_error, &its_traceback);
            if (tell(f, now.state, now.shared) < 0) PyErr_Clear();
            PyErr_Restore(its_type, its_error, its_traceback);
        } else {
            told = tell(f, now.state, now.shared);
        }
        if (self) limbo_drain(self);
        Py_XDECREF((PyObject *)self);
    }
    Py_XDECREF(now.shared);
    if (type && told < 0) PyErr_Clear();
    if (type) PyErr_Restore(type, error, traceback);
    return told;
}

PyObject *flight_set_copy(PyObject *module, PyObject *copy) {
    (void)module;
    PyObject *before = copy_value;
    copy_value = Py_NewRef(copy);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

/* ---- fork ------------------------------------------------------------------------------------ */

/* In the child of a fork, the threads that led the other flights do not exist. */
static void forget_others(cache_core *self, const PyObject *led) {
    for (flight *f = self->flights, *next; f; f = next) {
        next = f->following;
        const PyObject *mine = led;
        while (mine && mine != (PyObject *)f) mine = (PyObject *)((const flight *)mine)->outer;
        if (mine) continue;
        flight_call_off(self, f->number);
        f->landed = 1;
    }
    limbo_drain(self);
}

PyObject *flight_forget_others(PyObject *module, PyObject *led) {
    (void)module;
    for (cache_core *core = cores_first(); core; core = core->following) {
        Py_INCREF((PyObject *)core);
        forget_others(core, Py_TYPE(led) == flight_type ? led : NULL);
        Py_DECREF((PyObject *)core);
    }
    Py_RETURN_NONE;
}

/* ---- the type -------------------------------------------------------------------------------- */

static const size_t references[] = {offsetof(flight, core), offsetof(flight, outer),
                                    offsetof(flight, loop), offsetof(flight, waiters),
                                    offsetof(flight, waits_for), offsetof(flight, function),
                                    offsetof(flight, args), offsetof(flight, kwargs),
                                    0};

static int flight_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, references, visit, arg);
}

static int flight_clear(PyObject *object) {
    static const size_t some[] = {offsetof(flight, outer), offsetof(flight, loop), offsetof(flight, waiters),
                                  offsetof(flight, waits_for), 0};
    return clear_references(object, some); /* not the core: its list has this flight */
}

static void flight_dealloc(PyObject *object) {
    /* In a loop: as many flights may be nested as a recursion was deep, too many for the stack. */
    flight *outer = ((flight *)object)->outer;
    ((flight *)object)->outer = NULL;
    free_collected(object, references);
    while (outer && Py_REFCNT((PyObject *)outer) == 1) {
        flight *its_outer = outer->outer;
        outer->outer = NULL;
        Py_DECREF((PyObject *)outer);
        outer = its_outer;
    }
    Py_XDECREF((PyObject *)outer);
}

static PyObject *get_waiting(PyObject *object, void *unused) {
    (void)unused;
    PyObject *waiters = ((flight *)object)->waiters;
    return PyLong_FromSsize_t(waiters ? PyList_Size(waiters) : 0);
}

static PyObject *call_off(PyObject *object, PyObject *unused) {
    (void)unused;
    flight *f = (flight *)object;
    if (f->number) {
        flight_call_off(f->core, f->number);
        limbo_drain(f->core);
    }
    Py_RETURN_NONE;
}

static PyObject *abandon(PyObject *object, PyObject *unused) {
    (void)unused;
    return flight_land((flight *)object, NULL) < 0 ? NULL : Py_NewRef(Py_None);
}

int flight_add_type(PyObject *module) {
    static PyMemberDef members[] = {
        {"landed", T_BOOL, offsetof(flight, landed), READONLY, "Whether the flight has ended."},
        {"outer", T_OBJECT, offsetof(flight, outer), READONLY,
         "The flight in whose computation it began, or None."},
        {"loop", T_OBJECT, offsetof(flight, loop), READONLY,
         "The event loop that has to run for it, or None."},
        {0}};
    static PyGetSetDef computed[] = {
        {"waiting", get_waiting, NULL, "The number of its waiters.", NULL}, {0}};
    static PyMethodDef methods[] = {
        {"call_off", call_off, METH_NOARGS,
         "call_off(): no caller joins it any more, and its result is not stored."},
        {"abandon", abandon, METH_NOARGS, "abandon(): its leader will not continue; it lands without a value."},
        {0}};
    static PyType_Slot slots[] = {{Py_tp_doc, "One computation under way."},
                                  {Py_tp_dealloc, flight_dealloc},
                                  {Py_tp_traverse, flight_traverse},
                                  {Py_tp_clear, flight_clear},
                                  {Py_tp_members, members},
                                  {Py_tp_getset, computed},
                                  {Py_tp_methods, methods},
                                  {0, NULL}};
    static PyType_Spec spec = {.name = "vrange._hit.Flight",
                               .basicsize = sizeof(flight),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                        Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
                               .slots = slots};
    get_ident_name = PyUnicode_InternFromString("get_ident");
    threading_module = PyImport_ImportModule("threading");
    if (!get_ident_name || !threading_module) return -1;
    flight_type = add_type(module, &spec);
    return flight_type ? 0 : -1;
}
