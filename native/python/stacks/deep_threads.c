/* Raises the limits of threads with deep own stacks, as long as they have the interpreter's thread state.
 *
 * A thread is noticed when it runs its first Python function: then the interpreter takes the first part of its
 * frame stack, from a provider that vrange wraps, in that thread and with the GIL. So threads are found however
 * they were started, and no function of Python's is replaced. A thread whose stack is small is left alone. */
#include "python/stacks/deep_threads.h"

#include <stdbool.h>
#include <string.h>

#include "python/arena_observer.h"
#include "python/stacks/recursion.h"
#include "os/os_main_stack.h"
#include "stacks/deep_threads.h"
#include "stacks/stack_current.h"
#include "stacks/stack_room.h"

#define FRAMES_MOST ((ptrdiff_t)256 << 10) /* a larger allocation is an arena */

static size_t least; /* 0: off */

static _Thread_local struct {
    uint64_t seen;  /* the identity of the thread state that was raised or left alone; 0: none */
    stack *own;
} here;

static void *thread_now(void) { return PyGILState_GetThisThreadState(); }

/* The limits stay raised until the thread state goes. */
static int raise_limits(stack *s) {
    raised_limits unused;
    stack_thread_now = thread_now;
    return recursion_raise(s, &unused);
}

/* A thread of a C library has a new thread state each time that it calls Python (PyGILState_Ensure). */
static void notice(void) {
    PyThreadState *thread = PyThreadState_Get();
    const uint64_t identity = PyThreadState_GetID(thread);
    if (here.seen == identity) return;
    here.seen = identity;
    if (!here.own && deep_threads_begin(least, &here.own) < 0) return;
    if (raise_limits(here.own) < 0) PyErr_Clear();
}

static bool observe(ptrdiff_t bytes) {
    if (least && bytes > 0 && bytes < FRAMES_MOST) notice();
    return stack_room_observe(bytes);
}

const char *deep_stacks_prepare(void) {
    static bool observes;
    const char *refusal = recursion_find();
    if (!refusal && !observes) refusal = arena_observe(observe);
    observes = !refusal;
    return refusal;
}

static bool is_prepared(void) {
    const char *refusal = deep_stacks_prepare();
    if (!refusal) return true;
    PyErr_Format(PyExc_OSError, "deep stacks are not possible here: %s", refusal);
    return false;
}

PyObject *deep_threads_main(PyObject *module, PyObject *args) {
    (void)module;
    Py_ssize_t bytes, usual;
    if (!PyArg_ParseTuple(args, "nn", &bytes, &usual) || !is_prepared()) return NULL;
    const int result = deep_threads_begin_main((size_t)bytes, (size_t)usual, &here.own);
    if (result < 0)
        return PyErr_Format(PyExc_OSError, "main's stack can't be made deep: %s", strerror(-result));
    here.seen = PyThreadState_GetID(PyThreadState_Get());
    if (raise_limits(here.own) < 0) return NULL;
    return PyLong_FromSize_t(here.own->bytes);
}

PyObject *deep_threads_switch(PyObject *module, PyObject *args) {
    (void)module;
    Py_ssize_t bytes;
    if (!PyArg_ParseTuple(args, "n", &bytes) || !is_prepared()) return NULL;
    /* The caller's frames began before: it is not a thread that is started from now on. */
    if (!here.seen) here.seen = PyThreadState_GetID(PyThreadState_Get());
    least = (size_t)bytes;
    Py_RETURN_NONE;
}

PyObject *deep_threads_again(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    deep_threads_watch();
    Py_RETURN_NONE;
}

PyObject *deep_threads_default_stack(PyObject *module, PyObject *args) {
    (void)module;
    Py_ssize_t bytes;
    if (!PyArg_ParseTuple(args, "n", &bytes)) return NULL;
    return PyLong_FromLong(os_default_thread_stack((size_t)bytes));
}
