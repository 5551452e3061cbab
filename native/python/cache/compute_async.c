/* Computing by a coroutine: an awaitable that leads a flight, and lands it however the coroutine ends.
 *
 * The awaitable passes on what its coroutine yields. The flight lands here, in C, where no signal handler can
 * interrupt, whether the coroutine returns, raises, is cancelled, is closed or is dropped. The awaitable
 * returns the value, or another caller's Flight for Python to wait for. */
#include "python/cache/compute_async.h"

#include <stddef.h>

#include "os/os.h"
#include "counters/stats.h"
#include "python/cache/codec.h"
#include "python/cache/compute.h"
#include "python/cache/listener.h"
#include "python/cache/lookup.h"
#include "python/cache/refresh.h"
#include "python/cache/store.h"

typedef struct {
    PyObject_HEAD
    cache_core *core;
    PyObject *key, *function, *loop;
    PyObject *coroutine; /* that the function returned, or an iterator that does the same */
    flight *mine;
    uint64_t begun_ns; /* of a computation without a flight, in a cache that keeps nothing */
    char began, ended;
    bool has_waited; /* for another's computation, before */
} computation;

static PyTypeObject *computation_type;
static PyObject *throw_name, *close_name, *value_name, *send_name, *await_name;

/* ---- beginning and ending -------------------------------------------------------------------- */

/* Stores a value, and lands the flight with it, with the error that is set, or, if the coroutine did not
 * finish, with nothing. Returns the object for the caller; NULL: there is none, with or without an error. */
static PyObject *end(computation *self, PyObject *value) {
    self->ended = 1;
    Py_CLEAR(self->coroutine);
    flight *f = self->mine;
    self->mine = NULL;
    if (!f) {
        if (value && self->begun_ns)
            vrange_account_regenerated(self->core->account, os_now_ns() - self->begun_ns);
        return Py_XNewRef(value);
    }
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    /* A coroutine that is no longer awaited may be closed in another context. */
    PyObject *led = PyObject_CallNoArgs(self->core->get_led);
    if (!led) PyErr_Clear();
    if (led == (PyObject *)f && f->core) flight_leave(f);
    Py_XDECREF(led);
    PyErr_Restore(type, error, traceback);
    PyObject *kept = NULL;
    if (value && f->core) {
        const uint64_t took = os_now_ns() - f->asked_ns;
        kept = store_computed(f, value, took);
        if (kept) count_regenerated(f, took);
    } else if (value) { /* it was abandoned meanwhile */
        kept = core_answer_unstored(self->core, Py_NewRef(value));
    }
    if (flight_land(f, kept) < 0) Py_CLEAR(kept);
    if (value) kept = listener_pass(self->core, kept);
    Py_DECREF((PyObject *)f);
    return kept;
}

/* Calls the function, and returns what runs its awaitable: a coroutine itself, or for a task, a future or
 * another object what its __await__ returns. */
static PyObject *call_to_await(PyObject *function) {
    PyObject *awaitable = PyObject_CallNoArgs(function);
    if (!awaitable || PyObject_HasAttr(awaitable, send_name)) return awaitable;
    PyObject *running = PyObject_CallMethodObjArgs(awaitable, await_name, NULL);
    if (!running && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Format(PyExc_TypeError, "%R must return an awaitable, not %R", function, awaitable);
    }
    Py_DECREF(awaitable);
    return running;
}

/* 1: the coroutine runs. 0: *answer is a value or another caller's flight. -1 with an error set. */
static int begin(computation *self, PyObject **answer) {
    cache_core *core = self->core;
    key_hash hash;
    self->began = 1;
    if (!hash_key(self->key, &hash)) return -1;
    for (;;) {
        looked_up found = {.stale = self->loop ? STALE_IS_TAKEN : STALE_IS_OVER,
                           .has_waited = self->has_waited};
        switch (core_look_up(core, self->key, hash, &found)) {
        case LOOKUP_FAILED: return -1;
        case LOOKUP_FOUND:
            *answer = refresh_by(core, self->key, &found, self->function, self->loop);
            return *answer ? 0 : -1;
        case LOOKUP_UNDER_WAY: /* Python counts it, once it has waited */
            *answer = Py_NewRef(entry_at(&core->index, found.number)->form);
            return 0;
        }
        if (core_keeps_nothing(core)) {
            stats_request_with_gil(core->account, found.outcome);
            self->begun_ns = os_now_ns();
            self->coroutine = call_to_await(self->function);
            return self->coroutine ? 1 : -1;
        }
        flight *f = flight_begin(core, self->key, hash, found.version, found.outcome, self->loop);
        if (!f) return -1;
        if (!f->number) { /* the key was added meanwhile */
            Py_DECREF((PyObject *)f);
            continue;
        }
        self->mine = f;
        stats_request_with_gil(core->account, found.outcome);
        if (flight_enter(f) < 0) return -1;
        self->coroutine = call_to_await(self->function);
        return self->coroutine ? 1 : -1;
    }
    return -1;
}

/* The coroutine will not be awaited to its end. */
static void abandon(computation *self) {
    if (!self->mine) return;
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyObject *nothing = end(self, NULL);
    Py_XDECREF(nothing);
    if (PyErr_Occurred()) PyErr_WriteUnraisable(self->function); /* not self, which may be dying */
    PyErr_Restore(type, error, traceback);
}

/* ---- as a coroutine -------------------------------------------------------------------------- */

static PySendResult came_to(computation *self, PyObject *value, PyObject **result) {
    *result = end(self, value);
    Py_XDECREF(value);
    return *result ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult computation_send(PyObject *object, PyObject *sent, PyObject **result) {
    computation *self = (computation *)object;
    *result = NULL;
    if (self->ended) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse an awaited computation");
        return PYGEN_ERROR;
    }
    if (!self->began) {
        const int began = begin(self, result);
        if (began == 0) self->ended = 1;
        if (began == 0) return PYGEN_RETURN;
        if (began < 0) return came_to(self, NULL, result);
    }
    PyObject *coroutine = Py_NewRef(self->coroutine), *value = NULL;
    const PySendResult sending = PyIter_Send(coroutine, sent, &value);
    Py_DECREF(coroutine);
    if (sending != PYGEN_NEXT) return came_to(self, value, result);
    *result = value;
    return PYGEN_NEXT;
}

/* For callers that use the iterator protocol. */
static PyObject *stop_with(PySendResult sending, PyObject *result) {
    if (sending != PYGEN_RETURN) return result;
    PyObject *stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, result, NULL);
    Py_DECREF(result);
    if (stop) PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
    return NULL;
}

static PyObject *computation_send_method(PyObject *object, PyObject *sent) {
    PyObject *result;
    const PySendResult sending = computation_send(object, sent, &result);
    return stop_with(sending, result);
}

static PyObject *computation_next(PyObject *object) { return computation_send_method(object, Py_None); }

/* The value of the StopIteration that is set, which it clears. NULL with an error set. */
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

static PyObject *computation_throw(PyObject *object, PyObject *args) {
    computation *self = (computation *)object;
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
    PyObject *result;
    const PySendResult sending = came_to(self, value, &result);
    return stop_with(sending, result);
}

static PyObject *computation_close(PyObject *object, PyObject *unused) {
    (void)unused;
    computation *self = (computation *)object;
    PyObject *closed = Py_NewRef(Py_None);
    if (self->coroutine) {
        Py_DECREF(closed);
        PyObject *coroutine = Py_NewRef(self->coroutine);
        closed = PyObject_CallMethodObjArgs(coroutine, close_name, NULL);
        Py_DECREF(coroutine);
    }
    self->began = 1;
    PyObject *nothing = end(self, NULL);
    Py_XDECREF(nothing);
    if (PyErr_Occurred()) Py_CLEAR(closed);
    return closed;
}

/* ---- the type -------------------------------------------------------------------------------- */

PyObject *core_answer_async(cache_core *core, PyObject *key, PyObject *function, PyObject *loop,
                            bool has_waited) {
    allocfunc allocate = (allocfunc)PyType_GetSlot(computation_type, Py_tp_alloc);
    computation *self = (computation *)allocate(computation_type, 0);
    if (!self) return NULL;
    self->core = (cache_core *)Py_NewRef((PyObject *)core);
    self->key = Py_NewRef(key);
    self->function = Py_NewRef(function);
    self->has_waited = has_waited;
    self->loop = loop == Py_None ? NULL : Py_NewRef(loop);
    return (PyObject *)self;
}

static const size_t references[] = {
    offsetof(computation, core), offsetof(computation, key), offsetof(computation, function),
    offsetof(computation, loop), offsetof(computation, coroutine), offsetof(computation, mine), 0};

static int computation_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, references, visit, arg);
}

static int computation_clear(PyObject *object) {
    static const size_t some[] = {offsetof(computation, loop), offsetof(computation, coroutine), 0};
    abandon((computation *)object);
    return clear_references(object, some);
}

static void computation_finalize(PyObject *object) { abandon((computation *)object); }

static void computation_dealloc(PyObject *object) {
    PyObject_GC_UnTrack(object);
    abandon((computation *)object);
    free_collected(object, references);
}

int compute_async_add_type(PyObject *module) {
    static PyMethodDef methods[] = {
        {"send", computation_send_method, METH_O, "As of a coroutine."},
        {"throw", computation_throw, METH_VARARGS, "As of a coroutine."},
        {"close", computation_close, METH_NOARGS, "As of a coroutine."},
        {0}};
    static PyType_Slot slots[] = {{Py_tp_doc, "A value that a coroutine computes, to be awaited."},
                                  {Py_tp_dealloc, computation_dealloc},
                                  {Py_tp_finalize, computation_finalize},
                                  {Py_tp_traverse, computation_traverse},
                                  {Py_tp_clear, computation_clear},
                                  {Py_am_await, PyObject_SelfIter},
                                  {Py_am_send, computation_send},
                                  {Py_tp_iter, PyObject_SelfIter},
                                  {Py_tp_iternext, computation_next},
                                  {Py_tp_methods, methods},
                                  {0, NULL}};
    static PyType_Spec spec = {.name = "vrange._hit.Computation",
                               .basicsize = sizeof(computation),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                        Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
                               .slots = slots};
    throw_name = PyUnicode_InternFromString("throw");
    close_name = PyUnicode_InternFromString("close");
    send_name = PyUnicode_InternFromString("send");
    await_name = PyUnicode_InternFromString("__await__");
    value_name = PyUnicode_InternFromString("value");
    if (!throw_name || !close_name || !value_name || !send_name || !await_name) return -1;
    computation_type = add_type(module, &spec);
    return computation_type ? 0 : -1;
}
