/* The extension module vrange._deep: calls a function on a deep stack.
 *
 * The call stays in its thread and keeps the GIL. vrange takes a stack from the pool and raises the
 * thread's limits to what that stack can hold. The stack pointer moves there, and comes back with the
 * result or the exception. This file decides what a shallow call costs: it makes no system call and no
 * allocation. */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "python/stacks/deep_threads.h"
#include "python/stacks/greenlets.h"
#include "base/space_budget.h"
#include "os/os.h"
#include "stacks/sigsegv.h"
#include "python/stacks/recursion.h"
#include "python/support.h"
#include "pressure/memory_limits.h"
#include "stacks/stack.h"
#include "stacks/stack_current.h"
#include "stacks/stack_pages.h"
#include "stacks/switch.h"

#define SETTINGS_CACHED_MOST 256
#define ARM_AGAIN_CALLS 64
#define ARGUMENTS_IN_PLACE 16
#define LIMITS_NS 1000000000ull
#define AUTOMATIC_LEAST ((size_t)1 << 20)
#define BUDGET_SHARE 4 /* of the address space that vrange may reserve, for one stack */

/* (bytes, release, name), made and checked by `make_settings` in Python; 0 bytes: automatic. */
static PyObject *make_settings, *default_settings, *settings_cache, *stack_keyword;
static PyObject *vrange_error, *stack_unavailable_error;

/* In every CPython since 3.8, but declared in the limited API only since 3.12. */
static PyObject *(*vectorcall)(PyObject *, PyObject *const *, size_t, PyObject *);

typedef struct {
    size_t bytes;
    int release;
    const char *name;
} settings;

typedef struct {
    stack *on; /* NULL: on the caller's stack */
    PyObject *function, *const *arguments;
    size_t count; /* of the positional ones */
    PyObject *names;
    PyObject *result;
} job;

/* If memory for a frame was refused (stack_room.c), the interpreter raises MemoryError. This replaces it
 * by RecursionError, because a runaway recursion was the cause. */
static void name_refusal(void) {
    PyObject *type, *value, *traceback;
    if (!PyErr_ExceptionMatches(PyExc_MemoryError)) return;
    PyErr_Fetch(&type, &value, &traceback);
    Py_XDECREF(type);
    Py_XDECREF(value);
    PyErr_SetString(PyExc_RecursionError, "maximum recursion depth exceeded: no memory is left for frames");
    PyObject *none;
    PyErr_Fetch(&type, &value, &none);
    Py_XDECREF(none);
    PyErr_Restore(type, value, traceback);
}

static void start(void *argument) {
    job *call = argument;
    call->result = vectorcall(call->function, call->arguments, call->count, call->names);
    if (!call->result && call->on && call->on->is_refused) name_refusal();
    if (call->on) call->on->reusable = greenlets_end(call->on);
}

/* ---- the call ---------------------------------------------------------------------------------- */

/* A deep call inside a deep call stays on the same stack while a quarter of what it asks for is left. A
 * stack that was entered because the previous one was nearly used up is the last of its size. Otherwise a
 * runaway recursion would go on from stack to stack until the memory is used up. */
static bool is_nearly_used_up(const stack *s, size_t bytes) {
    size_t left = (size_t)((char *)__builtin_frame_address(0) - s->low);
    return left < bytes / 4;
}

/* Only address space: stack_room.c decides how much of it becomes memory. */
static size_t bytes_by_limit(void) {
    const uint64_t most = space_budget() / BUDGET_SHARE;
    size_t bytes = STACK_AUTOMATIC_BYTES;
    while (bytes > AUTOMATIC_LEAST && bytes > most) bytes /= 2;
    return bytes;
}

static size_t automatic_bytes(void) {
    static size_t bytes;
    static uint64_t looked_ns;
    const uint64_t now = os_now_coarse_ns();
    if (looked_ns && now - looked_ns < LIMITS_NS) return bytes;
    looked_ns = now;
    const size_t before = bytes;
    bytes = bytes_by_limit();
    if (bytes < before) vrange_stacks_trim_pooled(); /* RLIMIT_AS was set later, and pooled stacks count */
    limits_follow_outside();
    return bytes;
}

static int take(size_t bytes, bool automatic, stack **out) {
    int result = stack_take(bytes, automatic, out);
    while (automatic && result == -ENOMEM && bytes > AUTOMATIC_LEAST)
        result = stack_take(bytes /= 2, true, out);
    return result;
}

static PyObject *refuse_take(int error, size_t bytes) {
    return PyErr_Format(
        stack_unavailable_error,
        "a stack of %zu bytes can't be allocated (%s): the address space of this process is limited "
        "(RLIMIT_AS, RLIMIT_DATA), or the machine promises no more memory than it has "
        "(vm.overcommit_memory=2), or too many threads are in deep calls. A smaller stack= may fit",
        bytes, strerror(-error));
}

/* faulthandler.enable() and disable() replace our handler by theirs. Asking faulthandler is cheaper than
 * asking the kernel, and few programs have imported it. */
static bool is_faulthandler_switched(void) {
    static PyObject *name;
    static int enabled = -1;
    if (!name) name = PyUnicode_InternFromString("faulthandler");
    PyObject *module = name ? PyDict_GetItemWithError(PyImport_GetModuleDict(), name) : NULL;
    PyObject *answer = module ? PyObject_CallMethod(module, "is_enabled", NULL) : NULL;
    const int now = answer == Py_True;
    if (PyErr_Occurred()) PyErr_Clear();
    Py_XDECREF(answer);
    const bool switched = now != enabled;
    enabled = now;
    return switched;
}

static PyObject *call_on(stack *s, job *call, int release) {
    static unsigned calls;
    raised_limits raised;
    if (recursion_raise(s, &raised) < 0) {
        stack_give(s, 0, release);
        return NULL;
    }
    call->on = s;
    stack_set_current(s);
    switch_call(s->top, start, call);
    stack_set_current(s->outer);
    recursion_restore(s, &raised, s->outer);
    if (!s->reusable) {
        stack_retire(s);
        return call->result;
    }
    const size_t used = stack_used(s);
    if (used < LET_OTHERS_RUN_BYTES) {
        stack_give(s, used, release);
    } else {
        Py_BEGIN_ALLOW_THREADS
        stack_give(s, used, release);
        Py_END_ALLOW_THREADS
    }
    /* Handlers are rarely installed over ours: an occasional check is enough. */
    if (used || ++calls % ARM_AGAIN_CALLS == 0) sigsegv_arm_process();
    return call->result;
}

static PyObject *run(const settings *how, job *call) {
    if (!PyCallable_Check(call->function)) {
        PyObject *type = (PyObject *)Py_TYPE(call->function);
        return PyErr_Format(PyExc_TypeError, "a deep call takes a callable, not %R of %R",
                            call->function, type);
    }
    stack *outer = stack_current();
    bool crowded = false;
    const bool automatic = !how->bytes;
    const size_t bytes = automatic ? automatic_bytes() : how->bytes;
    /* An explicit size is honoured, whatever memory there is: so not on a stack that memory limits. */
    if (outer && (bytes <= outer->bytes || (automatic && outer->is_own)) && (automatic || !outer->automatic)) {
        crowded = is_nearly_used_up(outer, bytes);
        if (!crowded || outer->crowded) {
            start(call);
            return call->result;
        }
    }
    if (greenlets_watch() < 0) return NULL;
    if (is_faulthandler_switched()) sigsegv_arm_process();
    stack *s;
    int result = sigsegv_arm_thread();
    if (result == 0) result = take(bytes, automatic, &s);
    if (result < 0) return refuse_take(result, automatic ? AUTOMATIC_LEAST : bytes);
    s->outer = outer;
    s->caller = __builtin_frame_address(0);
    s->crowded = crowded;
    s->name = how->name;
    return call_on(s, call, how->release);
}

/* ---- arguments from Python --------------------------------------------------------------------- */

static int read_settings(PyObject *tuple, settings *out) {
    if (!tuple || !PyTuple_Check(tuple) || PyTuple_Size(tuple) != 3) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "(bytes, release, name) expected");
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
static PyObject *run_without_keyword(job *call, Py_ssize_t place) {
    const size_t at = call->count + (size_t)place;
    const size_t all = call->count + (size_t)PyTuple_Size(call->names);
    PyObject *in_place[ARGUMENTS_IN_PLACE];
    PyObject **rest = all <= ARGUMENTS_IN_PLACE ? in_place : PyMem_Calloc(all, sizeof *rest);
    PyObject *tuple = rest ? settings_of(call->arguments[at]) : PyErr_NoMemory();
    PyObject *names = tuple ? without(call->names, place) : NULL;
    PyObject *result = NULL;
    settings how;
    if (names && read_settings(tuple, &how) == 0) {
        memcpy(rest, call->arguments, at * sizeof *rest);
        memcpy(rest + at, call->arguments + at + 1, (all - at - 1) * sizeof *rest);
        job remaining = *call;
        remaining.arguments = rest;
        remaining.names = PyTuple_Size(names) ? names : NULL;
        result = run(&how, &remaining);
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
    static settings usual;
    if (count < 1)
        return PyErr_Format(PyExc_TypeError, "deep_call() takes a callable and its arguments");
    if (!usual.name && (!is_ready() || read_settings(default_settings, &usual) < 0)) return NULL;
    job call = {NULL, args[0], args + 1, (size_t)count - 1, names, NULL};
    Py_ssize_t place = place_of_stack_keyword(names);
    return place < 0 ? run(&usual, &call) : run_without_keyword(&call, place);
}

static PyObject *deep_run(PyObject *module, PyObject *const *args, Py_ssize_t count,
                          PyObject *names) {
    (void)module;
    settings how;
    if (count < 2) return PyErr_Format(PyExc_TypeError, "run(settings, function, *args, **kwargs)");
    if (!is_ready() || read_settings(args[0], &how) < 0) return NULL;
    job call = {NULL, args[1], args + 2, (size_t)count - 2, names, NULL};
    return run(&how, &call);
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
    {"run", FAST(deep_run), METH_FASTCALL | METH_KEYWORDS,
     "run(settings, function, *args, **kwargs): a deep call with settings made beforehand."},
    {"configure", deep_configure, METH_VARARGS,
     "configure(make_settings, default): set how `stack=` becomes (bytes, release, name)."},
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
    {"watch_stacks", deep_threads_again, METH_NOARGS,
     "watch_stacks(): in the child of a fork, start what notices that a stack is shallow again."},
    {0}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                        .m_name = "vrange._deep",
                                        .m_doc = "Calls on deep stacks, with the GIL held.",
                                        .m_size = -1, /* one state a process, as in the core */
                                        .m_methods = functions};

static int find_errors(void) {
    PyObject *errors = PyImport_ImportModule("vrange.errors");
    if (!errors) return -1;
    vrange_error = PyObject_GetAttrString(errors, "VrangeError");
    Py_DECREF(errors);
    if (!vrange_error) return -1;
    PyObject *bases = PyTuple_Pack(2, vrange_error, PyExc_MemoryError);
    if (!bases) return -1;
    stack_unavailable_error = PyErr_NewExceptionWithDoc(
        "vrange.StackUnavailableError", "The address space for a deep stack can't be allocated.", bases,
        NULL);
    Py_DECREF(bases);
    return stack_unavailable_error ? 0 : -1;
}

PyMODINIT_FUNC PyInit__deep(void) {
    *(void **)&vectorcall = dlsym(RTLD_DEFAULT, "PyObject_Vectorcall");
    if (!vectorcall) {
        PyErr_SetString(PyExc_ImportError, "this interpreter has no PyObject_Vectorcall");
        return NULL;
    }
    stack_keyword = PyUnicode_InternFromString("stack");
    settings_cache = PyDict_New();
    PyObject *module = stack_keyword && settings_cache ? PyModule_Create(&definition) : NULL;
    if (!module || find_errors() < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    Py_INCREF(stack_unavailable_error);
    if (PyModule_AddObject(module, "StackUnavailableError", stack_unavailable_error) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    /* There are 32 places at most. Without one, the handler stays until the process ends. */
    Py_AtExit(sigsegv_disarm);
    return module;
}
