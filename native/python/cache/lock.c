/* A cache's lock, and the functions that run under it.
 *
 * A handler of a signal (Ctrl-C, a time limit) may raise between any two instructions of Python code,
 * also in a `finally`. So what has to happen whatever is raised happens here: the lock is released
 * natively, and remembers that a function under it did not come to its end. The books may be half
 * changed then: whoever takes the lock next mends them first. */
#include "python/hit.h"

#include <stddef.h>

#include "os/os.h"

typedef struct {
    PyObject_HEAD
    PyThread_type_lock lock;
    PyObject *mend;  /* called under the lock after a function under it raised; NULL: nothing is */
    PyObject *clean; /* a tuple of exceptions that are raised before anything is changed */
    unsigned long owner;
    unsigned depth, changing; /* of `changing`, those by functions that may change the books */
    char torn;
} cache_lock;

typedef struct {
    PyObject_HEAD
    PyObject *function;
} locked_function;

static PyTypeObject *lock_type;
static PyObject *lock_name, *method_type;

bool is_lock(PyObject *object) { return Py_TYPE(object) == lock_type; }

/* Waits for `nanoseconds`, or for ever if that is negative. 1, or 0 where it was not to be had, or -1 with
 * an error set, which a signal's handler raised. */
static int take(cache_lock *self, int64_t nanoseconds) {
    const unsigned long me = PyThread_get_thread_ident();
    if (self->depth && self->owner == me) {
        self->depth++;
        return 1;
    }
    const uint64_t began = os_now_ns();
    int64_t left = nanoseconds;
    PyLockStatus status = PyThread_acquire_lock(self->lock, NOWAIT_LOCK) ? PY_LOCK_ACQUIRED : PY_LOCK_FAILURE;
    while (status != PY_LOCK_ACQUIRED && left != 0) {
        Py_BEGIN_ALLOW_THREADS
        status = PyThread_acquire_lock_timed(self->lock, left < 0 ? -1 : left / 1000 + 1, 1);
        Py_END_ALLOW_THREADS
        if (status == PY_LOCK_INTR && PyErr_CheckSignals() < 0) return -1;
        if (nanoseconds >= 0) {
            const int64_t passed = (int64_t)(os_now_ns() - began);
            left = passed < nanoseconds ? nanoseconds - passed : 0;
        }
    }
    if (status != PY_LOCK_ACQUIRED) return 0;
    self->owner = me;
    self->depth = 1;
    return 1;
}

static void give(cache_lock *self) {
    if (--self->depth) return;
    self->owner = 0;
    PyThread_release_lock(self->lock);
}

int lock_now(PyObject *lock) { return take((cache_lock *)lock, 0); }
int lock_waiting(PyObject *lock) { return take((cache_lock *)lock, -1); }
void unlock(PyObject *lock) { give((cache_lock *)lock); }
bool lock_is_torn(PyObject *lock) { return ((cache_lock *)lock)->torn; }
void lock_tear(PyObject *lock) { ((cache_lock *)lock)->torn = 1; }

/* Where an outer call is just changing the books, they are its own to finish. -1 with an error set. */
static int mend(cache_lock *self) {
    if (!self->torn || self->changing || !self->mend) return 0;
    self->changing++;
    PyObject *done = PyObject_CallNoArgs(self->mend);
    self->changing--;
    Py_XDECREF(done);
    if (!done) return -1;
    self->torn = 0;
    return 0;
}

static void tear_unless(cache_lock *self, bool is_clean) {
    if (!is_clean) self->torn = 1;
}

static PyObject *call_locked(cache_lock *self, PyObject *function, PyObject *args, PyObject *kwargs) {
    if (mend(self) < 0) return NULL;
    self->changing++;
    PyObject *result = PyObject_Call(function, args, kwargs);
    self->changing--;
    if (!result) tear_unless(self, PyErr_ExceptionMatches(self->clean));
    return result;
}

static PyObject *locked_call(PyObject *object, PyObject *args, PyObject *kwargs) {
    PyObject *instance = PyTuple_GetItem(args, 0);
    PyObject *lock = instance ? PyObject_GetAttr(instance, lock_name) : NULL;
    PyObject *result = NULL;
    if (lock && !is_lock(lock)) {
        PyErr_SetString(PyExc_TypeError, "lock must be a Lock");
    } else if (lock && lock_waiting(lock) > 0) {
        result = call_locked((cache_lock *)lock, ((locked_function *)object)->function, args, kwargs);
        unlock(lock);
    }
    Py_XDECREF(lock);
    return result;
}

static PyObject *locked_get(PyObject *object, PyObject *instance, PyObject *owner) {
    (void)owner;
    if (!instance || instance == Py_None) return Py_NewRef(object);
    return PyObject_CallFunctionObjArgs(method_type, object, instance, NULL);
}

static PyObject *locked_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *function;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "locked(function)");
    if (!PyArg_ParseTuple(args, "O", &function)) return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    locked_function *self = (locked_function *)allocate(type, 0);
    if (self) self->function = Py_NewRef(function);
    return (PyObject *)self;
}

static const size_t locked_references[] = {offsetof(locked_function, function), 0};

static int locked_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, locked_references, visit, arg);
}
static int locked_clear(PyObject *object) { return clear_references(object, locked_references); }
static void locked_dealloc(PyObject *object) { free_collected(object, locked_references); }

static PyObject *lock_acquire(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"blocking", "timeout", NULL};
    int blocking = 1;
    double timeout = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|pd", names, &blocking, &timeout)) return NULL;
    const int taken = take((cache_lock *)object, !blocking ? 0 : timeout < 0 ? -1 : (int64_t)(timeout * 1e9));
    return taken < 0 ? NULL : PyBool_FromLong(taken);
}

static PyObject *lock_release(PyObject *object, PyObject *unused) {
    (void)unused;
    cache_lock *self = (cache_lock *)object;
    if (!self->depth || self->owner != PyThread_get_thread_ident())
        return PyErr_Format(PyExc_RuntimeError, "this thread has not got the lock");
    give(self);
    Py_RETURN_NONE;
}

static PyObject *lock_enter(PyObject *object, PyObject *unused) {
    (void)unused;
    if (lock_waiting(object) < 0) return NULL;
    if (mend((cache_lock *)object) < 0) {
        unlock(object);
        return NULL;
    }
    return Py_NewRef(object);
}

static PyObject *lock_exit(PyObject *object, PyObject *args) {
    cache_lock *self = (cache_lock *)object;
    PyObject *type = Py_None, *error, *traceback;
    if (!PyArg_ParseTuple(args, "OOO", &type, &error, &traceback)) return NULL;
    if (type != Py_None) tear_unless(self, PyErr_GivenExceptionMatches(type, self->clean));
    return lock_release(object, NULL);
}

static PyObject *lock_run(PyObject *object, PyObject *args) {
    double timeout;
    PyObject *function;
    if (!PyArg_ParseTuple(args, "dO", &timeout, &function)) return NULL;
    const int taken = take((cache_lock *)object, (int64_t)(timeout * 1e9));
    if (taken < 0) return NULL;
    if (!taken) Py_RETURN_NONE;
    PyObject *nothing = PyTuple_New(0);
    PyObject *result = nothing ? call_locked((cache_lock *)object, function, nothing, NULL) : NULL;
    give((cache_lock *)object);
    Py_XDECREF(nothing);
    return result;
}

static PyObject *lock_set_mend(PyObject *object, PyObject *function) {
    cache_lock *self = (cache_lock *)object;
    PyObject *before = self->mend;
    self->mend = Py_NewRef(function);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyObject *lock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "Lock(*clean)");
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    cache_lock *self = (cache_lock *)allocate(type, 0);
    if (!self) return NULL;
    self->clean = Py_NewRef(args);
    self->lock = PyThread_allocate_lock();
    if (self->lock) return (PyObject *)self;
    Py_DECREF(self);
    return PyErr_NoMemory();
}

static const size_t lock_references[] = {offsetof(cache_lock, mend), offsetof(cache_lock, clean), 0};

static int lock_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, lock_references, visit, arg);
}

static int lock_clear(PyObject *object) {
    Py_CLEAR(((cache_lock *)object)->mend); /* `clean` refers to types alone */
    return 0;
}

static void lock_dealloc(PyObject *object) {
    cache_lock *self = (cache_lock *)object;
    if (self->lock && !self->depth) PyThread_free_lock(self->lock);
    free_collected(object, lock_references);
}

int lock_add_type(PyObject *module) {
    static PyMethodDef methods[] = {
        {"acquire", (PyCFunction)(void (*)(void))lock_acquire, METH_VARARGS | METH_KEYWORDS,
         "As of threading.RLock."},
        {"release", lock_release, METH_NOARGS, "As of threading.RLock."},
        {"__enter__", lock_enter, METH_NOARGS, "Takes the lock, and mends what was left half changed."},
        {"__exit__", lock_exit, METH_VARARGS, "Releases the lock."},
        {"run", lock_run, METH_VARARGS,
         "run(timeout, function): what function() returns under the lock; None where the lock is not to "
         "be had within so many seconds."},
        {"mend_by", lock_set_mend, METH_O, "mend_by(function): what is called to mend the books."},
        {0}};
    static PyType_Slot lock_slots[] = {
        {Py_tp_doc, "Lock(*clean)\n\nA reentrant lock that knows whether what it guards was left half "
                    "changed. Exceptions of the types `clean` are raised before anything is changed."},
        {Py_tp_new, lock_new},
        {Py_tp_dealloc, lock_dealloc},
        {Py_tp_traverse, lock_traverse},
        {Py_tp_clear, lock_clear},
        {Py_tp_methods, methods},
        {0, NULL}};
    static PyType_Spec lock_spec = {
        .name = "vrange._hit.Lock",
        .basicsize = sizeof(cache_lock),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = lock_slots};
    static PyType_Slot locked_slots[] = {
        {Py_tp_doc, "locked(method)\n\nThe method, called under its object's `lock`."},
        {Py_tp_new, locked_new},
        {Py_tp_dealloc, locked_dealloc},
        {Py_tp_traverse, locked_traverse},
        {Py_tp_clear, locked_clear},
        {Py_tp_call, locked_call},
        {Py_tp_descr_get, locked_get},
        {0, NULL}};
    static PyType_Spec locked_spec = {
        .name = "vrange._hit.locked",
        .basicsize = sizeof(locked_function),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                 Py_TPFLAGS_METHOD_DESCRIPTOR,
        .slots = locked_slots};
    PyObject *types = PyImport_ImportModule("types");
    method_type = types ? PyObject_GetAttrString(types, "MethodType") : NULL;
    Py_XDECREF(types);
    lock_name = PyUnicode_InternFromString("lock");
    if (!method_type || !lock_name) return -1;
    lock_type = add_type(module, &lock_spec);
    return lock_type && add_type(module, &locked_spec) ? 0 : -1;
}
