/* Notices calls of the program's that would make vrange do harm.
 *
 * Address space is reserved for stacks, caches and the heap, within the limits of that time. If the program
 * then sets RLIMIT_AS, what is reserved counts, and its very next allocation would fail. So vrange always
 * watches the calls that set limits. The others matter for deep stacks: a handler of SIGSEGV that is installed
 * over vrange's would end the process at the first touch of a closed part of a stack; pytest enables
 * faulthandler. A thread that blocks SIGSEGV, with all other signals, would
 * end it in the same way. A deep call checks that itself, but a thread on its own stack makes no call.
 *
 * So the functions that do this call vrange when they have succeeded, whatever called them. Nothing else
 * about them is different: they are the same objects. deep_threads.c looks for what C libraries do, once a
 * second. */
#include "python/stacks/watched_calls.h"

#include "python/support.h"
#include "reserve/return_space.h"
#include "stacks/deep_threads.h"
#include "stacks/sigsegv.h"

typedef PyObject *with_keywords(PyObject *, PyObject *, PyObject *);
typedef PyObject *fast(PyObject *, PyObject *const *, Py_ssize_t);
typedef PyObject *fast_with_keywords(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

static struct {
    const char *module, *name;
    PyCFunction original; /* NULL: not watched */
} calls[] = {
    {"resource", "setrlimit", NULL},
    {"resource", "prlimit", NULL},
    {"faulthandler", "enable", NULL},
    {"faulthandler", "disable", NULL},
    {"_signal", "signal", NULL},
    {"_signal", "pthread_sigmask", NULL},
};

enum {
    LIMIT_CALLS = 2, /* the first ones set a limit, and the others a handler or a mask */
    CALLS = sizeof calls / sizeof *calls,
};

static PyObject *after_limit; /* a list of functions; NULL: none */
static PyInterpreterState *interpreter; /* that `after_limit` belongs to; the functions serve all of them */

/* The program's call succeeded, so no error may replace its result. */
static PyObject *then(int which, PyObject *result) {
    if (!result) return NULL;
    if (which >= LIMIT_CALLS) {
        sigsegv_arm_process();
        sigsegv_keep_unblocked();
        return result;
    }
    if (!return_space_if_changed()) return result;
    deep_threads_fit_limits();
    if (!after_limit || PyInterpreterState_Get() != interpreter) return result;
    for (Py_ssize_t i = 0; i < PyList_Size(after_limit); i++) {
        PyObject *each = Py_NewRef(PyList_GetItem(after_limit, i)), *done = PyObject_CallNoArgs(each);
        if (!done) PyErr_WriteUnraisable(each);
        Py_XDECREF(done);
        Py_DECREF(each);
    }
    return result;
}

/* A function has one of four calling conventions, and another one in another version of CPython. A function
 * that takes the place of one must know whose. */
/* clang-format off */
#define CALLED(type, n) ((type *)(void (*)(void))calls[n].original)
#define DEFINED(n) \
    static PyObject *plain_##n(PyObject *self, PyObject *args) { \
        return then(n, calls[n].original(self, args)); \
    } \
    static PyObject *with_keywords_##n(PyObject *self, PyObject *args, PyObject *names) { \
        return then(n, CALLED(with_keywords, n)(self, args, names)); \
    } \
    static PyObject *fast_##n(PyObject *self, PyObject *const *args, Py_ssize_t count) { \
        return then(n, CALLED(fast, n)(self, args, count)); \
    } \
    static PyObject *fast_with_keywords_##n(PyObject *self, PyObject *const *args, Py_ssize_t count, \
                                            PyObject *names) { \
        return then(n, CALLED(fast_with_keywords, n)(self, args, count, names)); \
    }
#define FUNCTION(function) ((PyCFunction)(void (*)(void))(function))
#define LISTED(n) \
    {plain_##n, FUNCTION(with_keywords_##n), FUNCTION(fast_##n), FUNCTION(fast_with_keywords_##n)},
#define EACH(what) what(0) what(1) what(2) what(3) what(4) what(5)
/* clang-format on */

EACH(DEFINED)
static const PyCFunction replacements[CALLS][4] = {EACH(LISTED)};

static int convention(int flags) {
    switch (flags) {
    case METH_NOARGS:
    case METH_VARARGS: return 0;
    case METH_VARARGS | METH_KEYWORDS: return 1;
    case METH_FASTCALL: return 2;
    case METH_FASTCALL | METH_KEYWORDS: return 3;
    default: return -1;
    }
}

/* A function that is not there, or has another calling convention, is left alone. */
static void watch(int which) {
    if (calls[which].original) return;
    PyObject *module = PyImport_ImportModule(calls[which].module);
    PyMethodDef *definition = module ? method_definition(module, calls[which].name) : NULL;
    const int how = definition ? convention(definition->ml_flags) : -1;
    if (how >= 0) {
        calls[which].original = definition->ml_meth;
        definition->ml_meth = replacements[which][how];
    }
    Py_XDECREF(module);
    if (PyErr_Occurred()) PyErr_Clear();
}

void watched_calls_of_limits(void) {
    for (int which = 0; which < LIMIT_CALLS; which++) watch(which);
}

PyObject *watched_calls_after_limits(PyObject *module, PyObject *function) {
    (void)module;
    if (!after_limit) {
        after_limit = PyList_New(0);
        interpreter = PyInterpreterState_Get();
    }
    if (!after_limit || PyList_Append(after_limit, function) < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *watched_calls_of_handlers(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    for (int which = LIMIT_CALLS; which < CALLS; which++) watch(which);
    Py_RETURN_NONE;
}
