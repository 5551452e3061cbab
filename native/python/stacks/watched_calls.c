/* Notices calls of the program's that would make deep stacks do harm.
 *
 * Under `vrange run --deep` address space is reserved for stacks, within the limits of that time. If the
 * program then sets RLIMIT_AS, what is reserved counts, and its very next allocation would fail. And a
 * handler of SIGSEGV that is installed over vrange's would end the process at the first touch of a closed
 * part of a stack; pytest enables faulthandler. A thread that blocks SIGSEGV, with all other signals, would
 * end it in the same way. A deep call checks that itself, but a thread on its own stack makes no call.
 *
 * So the functions that do this call vrange when they have succeeded, whatever called them. Nothing else
 * about them is different: they are the same objects. deep_threads.c looks for what C libraries do, once a
 * second. */
#include "python/stacks/watched_calls.h"

#include "python/support.h"
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

static PyObject *after_limit;
static PyInterpreterState *interpreter; /* that `after_limit` belongs to; the functions serve all of them */

/* The program's call succeeded, so no error may replace its result. */
static PyObject *then(int which, PyObject *result) {
    if (!result) return NULL;
    if (which >= LIMIT_CALLS) {
        sigsegv_arm_process();
        sigsegv_keep_unblocked();
        return result;
    }
    deep_threads_fit_limits();
    if (PyInterpreterState_Get() != interpreter) return result;
    PyObject *done = PyObject_CallNoArgs(after_limit);
    if (!done) PyErr_WriteUnraisable(after_limit);
    Py_XDECREF(done);
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

PyObject *watched_calls_begin(PyObject *module, PyObject *new_then) {
    (void)module;
    if (after_limit) Py_RETURN_NONE;
    after_limit = Py_NewRef(new_then);
    interpreter = PyInterpreterState_Get();
    for (int which = 0; which < CALLS; which++) watch(which);
    Py_RETURN_NONE;
}
