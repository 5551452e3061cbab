/* Flights: one computation per key at a time.
 *
 * A flight is under way from when its leader begins to compute until it lands, and must land whatever is
 * raised: a handler of a signal may raise between any two instructions of Python code, also in a `finally`.
 * So taking off, calling what computes, and landing are done here. What of a landing calls Python code, as
 * comparing keys may, is tried again.
 *
 * A key that is set or forgotten meanwhile drops its flights: what they compute is for those who asked
 * before, and is not stored. */
#include "python/cache/flight.h"

#include <stddef.h>

#define TRIES 16 /* an interrupt each time is none */

typedef struct {
    PyObject_HEAD
    PyObject *under_way; /* dict, key to the first of its flights */
    PyObject *get_led, *set_led; /* the innermost flight led in this context, or None */
} all_flights;

/* A coroutine's flight: an awaitable that lands when the coroutine ends, or it does. */
typedef struct {
    PyObject_HEAD
    PyObject *flights, *key, *compute, *loop;
    PyObject *coroutine; /* that compute returned */
    flight *mine;
    char anyway, began, ended;
} flown;

static PyTypeObject *flight_type, *flights_type, *flown_type;
static PyObject *setdefault_name, *pop_name, *threading_module, *get_ident_name, *throw_name, *close_name,
    *value_name;

bool is_flight(PyObject *object) { return Py_TYPE(object) == flight_type; }
bool is_flights(PyObject *object) { return Py_TYPE(object) == flights_type; }
bool flight_is_stale(PyObject *object) { return ((flight *)object)->stale; }

unsigned long flight_thread(void) {
    PyObject *ident = PyObject_CallMethodObjArgs(threading_module, get_ident_name, NULL);
    const unsigned long thread = ident ? PyLong_AsUnsignedLongMask(ident) : 0;
    Py_XDECREF(ident);
    return thread;
}

static flight *make_flight(all_flights *all, PyObject *loop) {
    PyObject *outer = PyObject_CallNoArgs(all->get_led);
    const unsigned long thread = outer ? flight_thread() : 0;
    flight *made = NULL;
    if (thread && !PyErr_Occurred()) {
        allocfunc allocate = (allocfunc)PyType_GetSlot(flight_type, Py_tp_alloc);
        made = (flight *)allocate(flight_type, 0);
    }
    if (made) {
        made->thread = thread;
        made->loop = loop ? Py_NewRef(loop) : NULL;
        if (is_flight(outer)) made->outer = (flight *)Py_NewRef(outer);
    }
    Py_XDECREF(outer);
    return made;
}

/* ---- under way ------------------------------------------------------------------------------- */

static void link_after(flight *first, flight *mine) {
    mine->next = first->next; /* the reference, too */
    first->next = (flight *)Py_NewRef((PyObject *)mine);
}

static void unlink_from(flight *first, flight *mine) {
    for (flight *at = first; at; at = at->next) {
        if (at->next != mine) continue;
        at->next = mine->next;
        mine->next = NULL;
        Py_DECREF((PyObject *)mine);
        return;
    }
}

/* No flight is found under the key any more, unless it is another one. Comparing keys may run Python code,
 * and fail. */
static int take_away(all_flights *all, PyObject *key, flight *mine) {
    PyObject *first = PyDict_GetItemWithError(all->under_way, key);
    if (!first) return PyErr_Occurred() ? -1 : 0;
    if (first != (PyObject *)mine) {
        unlink_from((flight *)first, mine);
        return 0;
    }
    if (!mine->next) return PyDict_DelItem(all->under_way, key);
    if (PyDict_SetItem(all->under_way, key, (PyObject *)mine->next) < 0) return -1;
    Py_CLEAR(mine->next); /* which is the first now */
    return 0;
}

/* 1 where the flight is under way from now on, 0 where another one is: `other`. -1 with an error set. */
static int take_off(all_flights *all, PyObject *key, flight *mine, bool anyway, flight **other) {
    for (;;) {
        /* Atomic, also where comparing keys runs Python code. */
        PyObject *first =
            PyObject_CallMethodObjArgs(all->under_way, setdefault_name, key, (PyObject *)mine, NULL);
        if (!first) return -1;
        if (first == (PyObject *)mine || (anyway && !((flight *)first)->landed)) {
            if (first != (PyObject *)mine) link_after((flight *)first, mine);
            Py_DECREF(first);
            return 1;
        }
        if (!((flight *)first)->landed) {
            *other = (flight *)first;
            return 0;
        }
        /* It could not be taken away when it landed. */
        const int gone = take_away(all, key, (flight *)first);
        Py_DECREF(first);
        if (gone < 0) return -1;
    }
}

static void drop_chain(flight *first) {
    Py_INCREF((PyObject *)first);
    while (first) {
        flight *next = first->next;
        first->next = NULL;
        first->stale = 1;
        Py_DECREF((PyObject *)first);
        first = next;
    }
}

int flights_drop(PyObject *object, PyObject *key) {
    all_flights *all = (all_flights *)object;
    if (PyDict_Size(all->under_way) == 0) return 0;
    PyObject *first = PyObject_CallMethodObjArgs(all->under_way, pop_name, key, Py_None, NULL);
    if (!first) return -1;
    if (is_flight(first)) drop_chain((flight *)first);
    Py_DECREF(first);
    return 0;
}

/* ---- landing --------------------------------------------------------------------------------- */

/* Those who wait share an Exception. What ends a thread or a task is its own. */
static PyObject *shared_error(PyObject *type, PyObject *error) {
    return type && error && PyErr_GivenExceptionMatches(type, PyExc_Exception) ? error : NULL;
}

/* Nobody finds it any more, then it has landed, then who waits is told, in any case. NULL as `value`: the
 * error that is set, or nothing. -1 with an error set; one that is set before stays. */
static int land(all_flights *all, PyObject *key, flight *mine, PyObject *value) {
    if (mine->landed) return 0;
    PyObject *type, *error, *traceback, *another = NULL, *of_it = NULL, *its_traceback = NULL;
    PyErr_Fetch(&type, &error, &traceback);
    if (type) {
        PyErr_NormalizeException(&type, &error, &traceback);
        if (traceback && error) PyException_SetTraceback(error, traceback);
    }
    int result = 0;
    if (!mine->stale) {
        for (int tries = 0; tries < TRIES && take_away(all, key, mine) < 0; tries++) {
            if (result == 0) {
                PyErr_Fetch(&another, &of_it, &its_traceback);
                result = -1;
            } else {
                PyErr_Clear();
            }
        }
    }
    mine->landed = 1;
    Py_CLEAR(mine->loop);
    PyObject *shared = value ? value : shared_error(type, error);
    const int state = value ? WAITER_HAS_VALUE : shared ? WAITER_HAS_ERROR : WAITER_HAS_NOTHING;
    if (result < 0 && !type) {
        type = another, error = of_it, traceback = its_traceback;
        another = of_it = its_traceback = NULL;
    }
    if (flight_tell(mine, state, shared) < 0) {
        if (type) PyErr_Clear();
        else PyErr_Fetch(&type, &error, &traceback);
        result = -1;
    }
    Py_XDECREF(another);
    Py_XDECREF(of_it);
    Py_XDECREF(its_traceback);
    if (type) PyErr_Restore(type, error, traceback);
    return result;
}

/* ---- functions ------------------------------------------------------------------------------- */

static int set_led(all_flights *all, PyObject *to) {
    PyObject *token = PyObject_CallFunctionObjArgs(all->set_led, to, NULL);
    Py_XDECREF(token);
    return token ? 0 : -1;
}

/* The flight is over for this context: nothing is lost where that can't be said, as it has landed. */
static void leave(all_flights *all, flight *mine) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyObject *outer = mine->outer ? (PyObject *)mine->outer : Py_None;
    for (int tries = 0; tries < TRIES && set_led(all, outer) < 0; tries++) PyErr_Clear();
    PyErr_Restore(type, error, traceback);
}

PyObject *fly(PyObject *flights, PyObject *key, bool anyway, flight_work work, void *context, flight **other) {
    all_flights *all = (all_flights *)flights;
    *other = NULL;
    flight *mine = make_flight(all, NULL);
    if (!mine) return NULL;
    PyObject *value = NULL;
    if (take_off(all, key, mine, anyway, other) > 0) {
        if (set_led(all, (PyObject *)mine) == 0) {
            value = work(context, mine);
            leave(all, mine);
        }
        if (land(all, key, mine, value) < 0) Py_CLEAR(value);
    }
    Py_DECREF((PyObject *)mine);
    return value;
}

static PyObject *call_with_flight(void *context, flight *mine) {
    return PyObject_CallFunctionObjArgs(context, (PyObject *)mine, NULL);
}

static PyObject *pair(PyObject *flag, PyObject *stolen) {
    PyObject *both = stolen ? PyTuple_New(2) : NULL;
    if (!both) {
        Py_XDECREF(stolen);
        return NULL;
    }
    PyTuple_SetItem(both, 0, Py_NewRef(flag));
    PyTuple_SetItem(both, 1, stolen);
    return both;
}

static PyObject *flights_lead(PyObject *object, PyObject *args) {
    PyObject *key, *compute;
    int anyway;
    if (!PyArg_ParseTuple(args, "OOp", &key, &compute, &anyway)) return NULL;
    flight *other;
    PyObject *value = fly(object, key, anyway, call_with_flight, compute, &other);
    if (other) return pair(Py_False, (PyObject *)other);
    return pair(Py_True, value);
}

/* ---- coroutines ------------------------------------------------------------------------------ */

static all_flights *all_of(flown *self) { return (all_flights *)self->flights; }

/* What it came to: a value, an error that is set, or neither where it is over before its end. */
static int end(flown *self, PyObject *value) {
    if (self->ended) return 0;
    self->ended = 1;
    Py_CLEAR(self->coroutine);
    if (!self->mine || !self->flights || !self->key) return 0;
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    /* A coroutine that nobody awaits any more is closed in another context. */
    PyObject *led = PyObject_CallNoArgs(all_of(self)->get_led);
    if (!led) PyErr_Clear();
    if (led == (PyObject *)self->mine) leave(all_of(self), self->mine);
    Py_XDECREF(led);
    PyErr_Restore(type, error, traceback);
    return land(all_of(self), self->key, self->mine, value);
}

/* 1 where it is under way, 0 where another flight is: `other`, -1 with an error set. */
static int begin(flown *self, flight **other) {
    self->began = 1;
    self->mine = make_flight(all_of(self), self->loop);
    if (!self->mine) return -1;
    const int off = take_off(all_of(self), self->key, self->mine, self->anyway, other);
    if (off <= 0) {
        Py_CLEAR(self->mine);
        return off;
    }
    if (set_led(all_of(self), (PyObject *)self->mine) < 0) return -1;
    self->coroutine = PyObject_CallFunctionObjArgs(self->compute, (PyObject *)self->mine, NULL);
    return self->coroutine ? 1 : -1;
}

static PySendResult came_to(flown *self, PyObject *value, PyObject **result) {
    if (end(self, value) < 0) Py_CLEAR(value);
    *result = value ? pair(Py_True, value) : NULL;
    return *result ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult flown_send(PyObject *object, PyObject *sent, PyObject **result) {
    flown *self = (flown *)object;
    *result = NULL;
    if (self->ended) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse an awaited computation");
        return PYGEN_ERROR;
    }
    if (!self->began) {
        flight *other = NULL;
        const int began = begin(self, &other);
        if (began == 0) {
            self->ended = 1;
            *result = pair(Py_False, (PyObject *)other);
            return *result ? PYGEN_RETURN : PYGEN_ERROR;
        }
        if (began < 0) return came_to(self, NULL, result);
    }
    PyObject *coroutine = Py_NewRef(self->coroutine), *value = NULL;
    const PySendResult sending = PyIter_Send(coroutine, sent, &value);
    Py_DECREF(coroutine);
    if (sending != PYGEN_NEXT) return came_to(self, value, result);
    *result = value;
    return PYGEN_NEXT;
}

/* For those that know iterators only. */
static PyObject *stop_with(PySendResult sending, PyObject *result) {
    if (sending != PYGEN_RETURN) return result;
    PyObject *stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, result, NULL);
    Py_DECREF(result);
    if (stop) PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
    return NULL;
}

static PyObject *flown_send_method(PyObject *object, PyObject *sent) {
    PyObject *result;
    const PySendResult sending = flown_send(object, sent, &result);
    return stop_with(sending, result);
}

static PyObject *flown_next(PyObject *object) { return flown_send_method(object, Py_None); }

/* Of the StopIteration that is set. NULL with an error set. */
static PyObject *returned_value(void) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *value = error ? PyObject_GetAttr(error, value_name) : NULL;
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return value;
}

static PyObject *flown_throw(PyObject *object, PyObject *args) {
    flown *self = (flown *)object;
    PyObject *type, *error = NULL, *traceback = NULL;
    if (!PyArg_ParseTuple(args, "O|OO", &type, &error, &traceback)) return NULL;
    if (!self->coroutine) {
        self->began = self->ended = 1;
        if (PyExceptionInstance_Check(type)) PyErr_SetObject((PyObject *)Py_TYPE(type), type);
        else PyErr_SetObject(type, error == Py_None ? NULL : error);
        return NULL;
    }
    PyObject *coroutine = Py_NewRef(self->coroutine);
    PyObject *throw = PyObject_GetAttr(coroutine, throw_name);
    PyObject *value = throw ? PyObject_CallObject(throw, args) : NULL;
    Py_XDECREF(throw);
    Py_DECREF(coroutine);
    if (value) return value;
    if (PyErr_ExceptionMatches(PyExc_StopIteration)) value = returned_value();
    const PySendResult sending = came_to(self, value, &value);
    return stop_with(sending, value);
}

static PyObject *flown_close(PyObject *object, PyObject *unused) {
    (void)unused;
    flown *self = (flown *)object;
    PyObject *closed = Py_NewRef(Py_None);
    if (self->coroutine) {
        Py_DECREF(closed);
        PyObject *coroutine = Py_NewRef(self->coroutine);
        closed = PyObject_CallMethodObjArgs(coroutine, close_name, NULL);
        Py_DECREF(coroutine);
    }
    self->began = 1;
    if (end(self, NULL) < 0) Py_CLEAR(closed);
    return closed;
}

static PyObject *flights_lead_async(PyObject *object, PyObject *args) {
    PyObject *key, *compute, *loop;
    int anyway;
    if (!PyArg_ParseTuple(args, "OOpO", &key, &compute, &anyway, &loop)) return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(flown_type, Py_tp_alloc);
    flown *self = (flown *)allocate(flown_type, 0);
    if (!self) return NULL;
    self->flights = Py_NewRef(object);
    self->key = Py_NewRef(key);
    self->compute = Py_NewRef(compute);
    self->loop = loop == Py_None ? NULL : Py_NewRef(loop);
    self->anyway = (char)anyway;
    return (PyObject *)self;
}

static const size_t flown_references[] = {
    offsetof(flown, flights), offsetof(flown, key), offsetof(flown, compute), offsetof(flown, loop),
    offsetof(flown, coroutine), offsetof(flown, mine), 0};

static int flown_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, flown_references, visit, arg);
}

/* Nobody will await it to its end. */
static void abandon(flown *self) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    if (end(self, NULL) < 0) PyErr_WriteUnraisable(self->compute); /* not self, which may be dying */
    PyErr_Restore(type, error, traceback);
}

static int flown_clear(PyObject *object) {
    abandon((flown *)object);
    return clear_references(object, flown_references);
}

static void flown_finalize(PyObject *object) { abandon((flown *)object); }

static void flown_dealloc(PyObject *object) {
    PyObject_GC_UnTrack(object);
    abandon((flown *)object);
    free_collected(object, flown_references);
}

/* ---- all of a cache's ------------------------------------------------------------------------ */

static PyObject *flights_drop_method(PyObject *object, PyObject *key) {
    return flights_drop(object, key) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *flights_drop_all(PyObject *object, PyObject *unused) {
    (void)unused;
    all_flights *all = (all_flights *)object;
    PyObject *flights = PyDict_Values(all->under_way);
    if (!flights) return NULL;
    PyDict_Clear(all->under_way);
    for (Py_ssize_t i = 0; i < PyList_Size(flights); i++) drop_chain((flight *)PyList_GetItem(flights, i));
    Py_DECREF(flights);
    Py_RETURN_NONE;
}

static PyObject *flights_abandon(PyObject *object, PyObject *args) {
    PyObject *key, *mine;
    if (!PyArg_ParseTuple(args, "OO", &key, &mine)) return NULL;
    if (!is_flight(mine)) return PyErr_Format(PyExc_TypeError, "abandon(key, flight)");
    if (land((all_flights *)object, key, (flight *)mine, NULL) < 0) return NULL;
    ((flight *)mine)->stale = 1;
    Py_RETURN_NONE;
}

/* Only what is led here goes on in the child of a fork. */
static PyObject *flights_after_fork(PyObject *object, PyObject *unused) {
    (void)unused;
    all_flights *all = (all_flights *)object;
    PyObject *led = PyObject_CallNoArgs(all->get_led);
    PyObject *items = led ? PyDict_Items(all->under_way) : NULL;
    if (items) {
        PyDict_Clear(all->under_way);
        for (Py_ssize_t i = 0; i < PyList_Size(items); i++) {
            PyObject *item = PyList_GetItem(items, i);
            PyObject *key = PyTuple_GetItem(item, 0);
            flight *first = (flight *)PyTuple_GetItem(item, 1);
            bool is_ours = false;
            for (flight *at = is_flight(led) ? (flight *)led : NULL; at && !is_ours; at = at->outer)
                is_ours = at == first;
            flight *others = first->next;
            first->next = NULL;
            if (others) drop_chain(others), Py_DECREF((PyObject *)others);
            if (!is_ours) drop_chain(first);
            else if (PyDict_SetItem(all->under_way, key, (PyObject *)first) < 0) PyErr_Clear();
        }
    }
    Py_XDECREF(led);
    Py_XDECREF(items);
    return items ? Py_NewRef(Py_None) : NULL;
}

static PyObject *flights_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *led;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "Flights(led)");
    if (!PyArg_ParseTuple(args, "O", &led)) return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    all_flights *self = (all_flights *)allocate(type, 0);
    if (!self) return NULL;
    self->under_way = PyDict_New();
    self->get_led = PyObject_GetAttrString(led, "get");
    self->set_led = PyObject_GetAttrString(led, "set");
    if (!self->under_way || !self->get_led || !self->set_led) Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *flights_under_way(PyObject *object, void *unused) {
    (void)unused;
    return Py_NewRef(((all_flights *)object)->under_way);
}

static const size_t flights_references[] = {offsetof(all_flights, under_way), offsetof(all_flights, get_led),
                                            offsetof(all_flights, set_led), 0};

static int flights_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, flights_references, visit, arg);
}
static int flights_clear(PyObject *object) { return clear_references(object, flights_references); }
static void flights_dealloc(PyObject *object) { free_collected(object, flights_references); }

/* ---- one flight ------------------------------------------------------------------------------ */

static const size_t flight_references[] = {offsetof(flight, outer), offsetof(flight, next),
                                           offsetof(flight, loop), offsetof(flight, waiters),
                                           offsetof(flight, waits_for), 0};

static int flight_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, flight_references, visit, arg);
}

static int flight_clear(PyObject *object) { return clear_references(object, flight_references); }

static void flight_dealloc(PyObject *object) {
    /* One after another: as deep as a recursion was, the stack would not do. */
    flight *outer = ((flight *)object)->outer;
    ((flight *)object)->outer = NULL;
    free_collected(object, flight_references);
    while (outer && Py_REFCNT((PyObject *)outer) == 1) {
        flight *its_outer = outer->outer;
        outer->outer = NULL;
        Py_DECREF((PyObject *)outer);
        outer = its_outer;
    }
    Py_XDECREF((PyObject *)outer);
}

static PyObject *flight_get_landed(PyObject *object, void *unused) {
    (void)unused;
    return PyBool_FromLong(((flight *)object)->landed);
}

static PyObject *flight_get_stale(PyObject *object, void *unused) {
    (void)unused;
    return PyBool_FromLong(((flight *)object)->stale);
}

static PyObject *flight_get_loop(PyObject *object, void *unused) {
    (void)unused;
    PyObject *loop = ((flight *)object)->loop;
    return Py_NewRef(loop ? loop : Py_None);
}

static PyObject *flight_get_outer(PyObject *object, void *unused) {
    (void)unused;
    PyObject *outer = (PyObject *)((flight *)object)->outer;
    return Py_NewRef(outer ? outer : Py_None);
}

static PyObject *flight_get_waiters(PyObject *object, void *unused) {
    (void)unused;
    PyObject *waiters = ((flight *)object)->waiters;
    return PyLong_FromSsize_t(waiters ? PyList_Size(waiters) : 0);
}

static int add_flight_type(PyObject *module) {
    static PyGetSetDef members[] = {
        {"landed", flight_get_landed, NULL, "Whether it is over.", NULL},
        {"stale", flight_get_stale, NULL, "Whether its value is not to be stored.", NULL},
        {"loop", flight_get_loop, NULL, "The event loop that has to run for it, or None.", NULL},
        {"outer", flight_get_outer, NULL, "The flight in which it began, or None.", NULL},
        {"waiting", flight_get_waiters, NULL, "How many wait for it.", NULL},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "A computation under way."},
        {Py_tp_dealloc, flight_dealloc},
        {Py_tp_traverse, flight_traverse},
        {Py_tp_clear, flight_clear},
        {Py_tp_getset, members},
        {0, NULL}};
    static PyType_Spec spec = {
        .name = "vrange._hit.Flight",
        .basicsize = sizeof(flight),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
                 Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots};
    flight_type = add_type(module, &spec);
    return flight_type ? 0 : -1;
}

static int add_flights_type(PyObject *module) {
    static PyMethodDef methods[] = {
        {"lead", flights_lead, METH_VARARGS,
         "lead(key, compute, anyway): (True, compute(flight)), done by nobody else meanwhile unless "
         "`anyway`, or (False, flight) of who is at it."},
        {"lead_async", flights_lead_async, METH_VARARGS,
         "lead_async(key, compute, anyway, loop): an awaitable of the same, of a coroutine function."},
        {"drop", flights_drop_method, METH_O, "drop(key): what is under way for the key is stale."},
        {"drop_all", flights_drop_all, METH_NOARGS, "drop_all(): whatever is under way is stale."},
        {"abandon", flights_abandon, METH_VARARGS,
         "abandon(key, flight): a flight that nobody goes on with lands, without a value."},
        {"after_fork", flights_after_fork, METH_NOARGS, "Forgets all flights that are not led here."},
        {0}};
    static PyGetSetDef members[] = {
        {"under_way", flights_under_way, NULL, "The flights, by key: the same dict always.", NULL}, {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Flights(led)\n\nThe computations of a cache that are under way. `led` is the "
                    "context's innermost one."},
        {Py_tp_new, flights_new},
        {Py_tp_dealloc, flights_dealloc},
        {Py_tp_traverse, flights_traverse},
        {Py_tp_clear, flights_clear},
        {Py_tp_methods, methods},
        {Py_tp_getset, members},
        {0, NULL}};
    static PyType_Spec spec = {
        .name = "vrange._hit.Flights",
        .basicsize = sizeof(all_flights),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots};
    flights_type = add_type(module, &spec);
    return flights_type ? 0 : -1;
}

static int add_flown_type(PyObject *module) {
    static PyMethodDef methods[] = {
        {"send", flown_send_method, METH_O, "As of a coroutine."},
        {"throw", flown_throw, METH_VARARGS, "As of a coroutine."},
        {"close", flown_close, METH_NOARGS, "As of a coroutine."},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "A coroutine's flight, to be awaited."},
        {Py_tp_dealloc, flown_dealloc},
        {Py_tp_finalize, flown_finalize},
        {Py_tp_traverse, flown_traverse},
        {Py_tp_clear, flown_clear},
        {Py_am_await, PyObject_SelfIter},
        {Py_am_send, flown_send},
        {Py_tp_iter, PyObject_SelfIter},
        {Py_tp_iternext, flown_next},
        {Py_tp_methods, methods},
        {0, NULL}};
    static PyType_Spec spec = {
        .name = "vrange._hit.Flown",
        .basicsize = sizeof(flown),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
                 Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots};
    flown_type = add_type(module, &spec);
    return flown_type ? 0 : -1;
}

int flight_add_types(PyObject *module) {
    setdefault_name = PyUnicode_InternFromString("setdefault");
    pop_name = PyUnicode_InternFromString("pop");
    get_ident_name = PyUnicode_InternFromString("get_ident");
    throw_name = PyUnicode_InternFromString("throw");
    close_name = PyUnicode_InternFromString("close");
    value_name = PyUnicode_InternFromString("value");
    threading_module = PyImport_ImportModule("threading");
    if (!setdefault_name || !pop_name || !get_ident_name || !throw_name || !close_name || !value_name ||
        !threading_module)
        return -1;
    return add_flight_type(module) < 0 || add_flights_type(module) < 0 || add_flown_type(module) < 0
               ? -1
               : flight_wait_add_types(module);
}
