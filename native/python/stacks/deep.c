/* The extension module vrange._deep: calls a function on a deep stack.
 *
 * The call stays in its thread and keeps the GIL. This file reads the arguments; deep_run.c makes the call. */
#include <string.h>

#include "python/stacks/deep_run.h"
#include "python/stacks/deep_threads.h"
#include "python/stacks/recursion.h"
#include "python/stacks/watched_calls.h"
#include "python/support.h"
#include "stacks/sigsegv.h"
#include "stacks/stack_current.h"

#define SETTINGS_CACHED_MOST 256
#define ARGUMENTS_IN_PLACE 16

/* Settings of vrange._stacks.deep, made and checked by `make_settings` there. */
static PyObject *make_settings, *default_settings, *settings_cache, *stack_keyword;
static PyObject *vrange_error;

/* ---- arguments from Python --------------------------------------------------------------------- */

static int read_settings(PyObject *tuple, deep_settings *out) {
    if (!tuple || !PyTuple_Check(tuple) || PyTuple_Size(tuple) != 3) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "Settings expected");
        return -1;
    }
    out->bytes = PyLong_AsSize_t(PyTuple_GetItem(tuple, 0));
    out->release = (int)PyLong_AsLong(PyTuple_GetItem(tuple, 1));
    if (PyErr_Occurred()) return -1;
    out->name = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(tuple, 2), NULL);
    return out->name ? 0 : -1;
}

/* A new reference to the settings that `stack=value` means. */
static PyObject *settings_of(PyObject *value) {
    const bool plain = PyUnicode_CheckExact(value) || PyLong_CheckExact(value);
    if (plain) {
        PyObject *known = PyDict_GetItemWithError(settings_cache, value);
        if (known || PyErr_Occurred()) {
            Py_XINCREF(known);
            return known;
        }
    }
    PyObject *made = PyObject_CallFunctionObjArgs(make_settings, value, NULL);
    if (made && plain && PyDict_Size(settings_cache) < SETTINGS_CACHED_MOST &&
        PyDict_SetItem(settings_cache, value, made) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}

static Py_ssize_t place_of_stack_keyword(PyObject *names) {
    const Py_ssize_t count = names ? PyTuple_Size(names) : 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GetItem(names, i);
        if (name == stack_keyword || PyUnicode_Compare(name, stack_keyword) == 0) return i;
    }
    return -1;
}

static PyObject *without(PyObject *tuple, Py_ssize_t place) {
    PyObject *head = PyTuple_GetSlice(tuple, 0, place);
    PyObject *tail = PyTuple_GetSlice(tuple, place + 1, PyTuple_Size(tuple));
    PyObject *rest = head && tail ? PySequence_Concat(head, tail) : NULL;
    Py_XDECREF(head);
    Py_XDECREF(tail);
    return rest;
}

/* Runs the call without the keyword argument at `place`. */
static PyObject *run_without_keyword(deep_job *call, Py_ssize_t place) {
    const size_t at = call->count + (size_t)place;
    const size_t all = call->count + (size_t)PyTuple_Size(call->names);
    PyObject *in_place[ARGUMENTS_IN_PLACE];
    PyObject **rest = all <= ARGUMENTS_IN_PLACE ? in_place : PyMem_Calloc(all, sizeof *rest);
    PyObject *tuple = rest ? settings_of(call->arguments[at]) : PyErr_NoMemory();
    PyObject *names = tuple ? without(call->names, place) : NULL;
    PyObject *result = NULL;
    deep_settings how;
    if (names && read_settings(tuple, &how) == 0) {
        memcpy(rest, call->arguments, at * sizeof *rest);
        memcpy(rest + at, call->arguments + at + 1, (all - at - 1) * sizeof *rest);
        deep_job remaining = *call;
        remaining.arguments = rest;
        remaining.names = PyTuple_Size(names) ? names : NULL;
        result = deep_run(&how, &remaining);
    }
    Py_XDECREF(names);
    Py_XDECREF(tuple);
    if (rest != in_place) PyMem_Free(rest);
    return result;
}

static bool is_ready(void) {
    const char *refusal = default_settings ? deep_stacks_prepare() : "vrange._stacks.deep was not imported";
    if (!refusal) return true;
    PyErr_Format(vrange_error, "deep calls are not possible here: %s", refusal);
    return false;
}

static PyObject *deep_call(PyObject *module, PyObject *const *args, Py_ssize_t count,
                           PyObject *names) {
    (void)module;
    static deep_settings usual;
    if (count < 1)
        return PyErr_Format(PyExc_TypeError, "deep_call() takes a callable and its arguments");
    if (!usual.name && (!is_ready() || read_settings(default_settings, &usual) < 0)) return NULL;
    deep_job call = {NULL, args[0], args + 1, (size_t)count - 1, names, NULL};
    Py_ssize_t place = place_of_stack_keyword(names);
    return place < 0 ? deep_run(&usual, &call) : run_without_keyword(&call, place);
}

static PyObject *run(PyObject *module, PyObject *const *args, Py_ssize_t count,
                     PyObject *names) {
    (void)module;
    deep_settings how;
    if (count < 2) return PyErr_Format(PyExc_TypeError, "run(settings, function, *args, **kwargs)");
    if (!is_ready() || read_settings(args[0], &how) < 0) return NULL;
    deep_job call = {NULL, args[1], args + 2, (size_t)count - 2, names, NULL};
    return deep_run(&how, &call);
}

static PyObject *deep_configure(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *make, *usual;
    if (!PyArg_ParseTuple(args, "OO!", &make, &PyTuple_Type, &usual)) return NULL;
    Py_INCREF(make);
    Py_INCREF(usual);
    make_settings = make;
    default_settings = usual;
    Py_RETURN_NONE;
}

/* ---- introspection ----------------------------------------------------------------------------- */

static PyObject *deep_here(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    const stack *s = stack_current();
    if (!s) Py_RETURN_NONE;
    return Py_BuildValue("nn", (Py_ssize_t)s->bytes,
                         (Py_ssize_t)(s->top - (char *)__builtin_frame_address(0)));
}

static PyObject *deep_limits(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return recursion_describe();
}

static PyObject *deep_levels_left(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return recursion_left();
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

PyDoc_STRVAR(
    deep_call_doc,
    "deep_call(f, /, *args, stack='auto', **kwargs)\n--\n\n"
    "Call ``f(*args, **kwargs)`` on a deep stack in this thread, and return the stack afterwards.\n"
    "\n"
    "Inside the call, recursion goes as deep as memory allows. It stays below the limits of the\n"
    "process's cgroups, RLIMIT_AS, RLIMIT_DATA and the machine, and keeps free what a RecursionError\n"
    "and its traceback take. Memory is checked as the recursion goes on, and includes that of other\n"
    "threads.\n"
    "\n"
    "Only this thread's limits are raised, and only until the call is over. The caller gets the\n"
    "result, or the exception with its whole traceback, as from an ordinary call.\n"
    "\n"
    "Parameters\n"
    "----------\n"
    "f : callable\n"
    "    The function to call. All other arguments are passed on to it.\n"
    "stack : \"auto\" or int or str or DeepStack\n"
    "    Address space for the stack: bytes, or a string such as \"64MiB\"; at least 256 KiB. With a\n"
    "    size, recursion goes as deep as that stack holds, whatever memory there is: one level of\n"
    "    Python for every 512 bytes, and as many levels of C (json, pickle, repr, functools.cache,\n"
    "    visitors) as fit there. Only the pages that are touched become memory, and all of them but\n"
    "    64 KiB are returned to the kernel afterwards. A `DeepStack` also says how they are\n"
    "    returned. If ``f`` itself has a keyword ``stack``, pass it with `DeepStack.call`.\n"
    "\n"
    "Returns\n"
    "-------\n"
    "object\n"
    "    The result of ``f``.\n"
    "\n"
    "Raises\n"
    "------\n"
    "RecursionError\n"
    "    Raised inside the recursion if it goes deeper than memory or the stack allows. The process\n"
    "    stays sound.\n"
    "TypeError, ValueError\n"
    "    ``f`` is not callable; ``stack`` is not a size, or too small.\n"
    "StackUnavailableError\n"
    "    The stack can't be allocated: RLIMIT_AS, RLIMIT_DATA, vm.overcommit_memory=2. A\n"
    "    `VrangeError` and a `MemoryError`.\n"
    "VrangeError\n"
    "    vrange does not find where this interpreter keeps its recursion limits.\n"
    "\n"
    "Notes\n"
    "-----\n"
    "Threads: any number of threads may be in deep calls, each on a stack of its own; thread-locals,\n"
    "context variables and the event loop are the caller's. A deep call inside a deep call stays on\n"
    "the same stack while there is room. Fork: the child continues on its copy of the stack.\n"
    "Greenlets: a switch out of the call, to a greenlet that began elsewhere, raises\n"
    "``greenlet.error``.\n"
    "\n"
    "Based on `PyUnstable_ThreadState_SetStackProtection\n"
    "<https://docs.python.org/3.15/c-api/threads.html>`_ (3.14 on), madvise(2) and mincore(2).\n"
    "\n"
    "Examples\n"
    "--------\n"
    ">>> import functools, vrange\n"
    ">>> @functools.cache\n"
    "... def steps(n):\n"
    "...     return 0 if n == 0 else 1 + steps(n - 1)\n"
    ">>> vrange.deep_call(steps, 100_000)\n"
    "100000\n");

static PyMethodDef functions[] = {
    {"deep_call", FAST(deep_call), METH_FASTCALL | METH_KEYWORDS, deep_call_doc},
    {"run", FAST(run), METH_FASTCALL | METH_KEYWORDS,
     "run(settings, function, *args, **kwargs): a deep call with settings made beforehand."},
    {"configure", deep_configure, METH_VARARGS,
     "configure(make_settings, default): set how `stack=` becomes Settings."},
    {"here", deep_here, METH_NOARGS,
     "here(): return (bytes, depth) of the deep stack that the caller runs on, or None."},
    {"limits", deep_limits, METH_NOARGS,
     "limits(): return where the limits are: (Python's offset, C's, bounds settable, refusal)."},
    {"levels_left", deep_levels_left, METH_NOARGS,
     "levels_left(): return the levels of Python and of C that this thread has left (C: None on 3.14)."},
    {"deepen_main", deep_threads_main, METH_VARARGS,
     "deepen_main(bytes, usual): make the main thread's own stack deep; return its bytes."},
    {"deepen_threads", deep_threads_switch, METH_VARARGS,
     "deepen_threads(least): do so for each thread that begins to run Python on a stack of `least` bytes."},
    {"set_default_stack", deep_threads_default_stack, METH_VARARGS,
     "set_default_stack(bytes): set the size for threads that C starts without one; return -errno or 0."},
    {"after_limits", watched_calls_after_limits, METH_O,
     "after_limits(function): call function() after each call that set a limit of this process."},
    {"watch_handlers", watched_calls_of_handlers, METH_NOARGS,
     "watch_handlers(): keep the signal of deep stacks when other code sets a handler or a mask."},
    {"watch_stacks", deep_threads_again, METH_NOARGS,
     "watch_stacks(): in the child of a fork, start what notices that a stack is shallow again."},
    {0}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                        .m_name = "vrange._deep",
                                        .m_doc = "Calls on deep stacks, with the GIL held.",
                                        .m_size = -1, /* one state a process, as in the core */
                                        .m_methods = functions};

static PyObject *find_errors(void) {
    PyObject *errors = PyImport_ImportModule("vrange.errors");
    if (!errors) return NULL;
    vrange_error = PyObject_GetAttrString(errors, "VrangeError");
    Py_DECREF(errors);
    return vrange_error ? deep_run_prepare(vrange_error) : NULL;
}

PyMODINIT_FUNC PyInit__deep(void) {
    stack_keyword = PyUnicode_InternFromString("stack");
    settings_cache = PyDict_New();
    PyObject *module = stack_keyword && settings_cache ? PyModule_Create(&definition) : NULL;
    PyObject *unavailable = module ? find_errors() : NULL;
    if (!unavailable) {
        Py_XDECREF(module);
        return NULL;
    }
    Py_INCREF(unavailable);
    if (PyModule_AddObject(module, "StackUnavailableError", unavailable) < 0) {
        Py_DECREF(unavailable);
        Py_DECREF(module);
        return NULL;
    }
    watched_calls_of_limits();
    /* There are 32 places at most. Without one, the handler stays until the process ends. */
    Py_AtExit(sigsegv_disarm);
    return module;
}
