/* A call on a deep stack: takes a stack from the pool, raises the thread's limits to what it can hold, moves
 * the stack pointer there and back, and gives the stack back.
 *
 * This file decides what a shallow call costs: it makes no system call and no allocation. */
#include "python/stacks/deep_run.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "base/space_budget.h"
#include "os/os.h"
#include "pressure/memory_limits.h"
#include "python/stacks/greenlets.h"
#include "python/stacks/recursion.h"
#include "python/support.h"
#include "stacks/sigsegv.h"
#include "stacks/stack.h"
#include "stacks/stack_current.h"
#include "stacks/stack_pages.h"
#include "stacks/switch.h"

#define ARM_AGAIN_CALLS 64
#define LIMITS_NS 1000000000ull
#define AUTOMATIC_LEAST ((size_t)1 << 20)
#define BUDGET_SHARE 4 /* of the address space that vrange may reserve, for one stack */

static PyObject *unavailable_error;

/* In every CPython since 3.8, but declared in the limited API only since 3.12. */
static PyObject *(*vectorcall)(PyObject *, PyObject *const *, size_t, PyObject *);

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
    deep_job *call = argument;
    call->result = vectorcall(call->function, call->arguments, call->count, call->names);
    if (!call->result && call->on && call->on->is_refused) name_refusal();
    if (call->on) call->on->reusable = greenlets_end(call->on);
}

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
    size_t bytes = VRANGE_STACK_AUTOMATIC_BYTES;
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

static int take_fitting(size_t bytes, bool automatic, stack **out) {
    int result = stack_take(bytes, automatic, out);
    while (automatic && result == -ENOMEM && bytes > AUTOMATIC_LEAST)
        result = stack_take(bytes /= 2, true, out);
    return result;
}

static PyObject *refuse_take(int error, size_t bytes) {
    return PyErr_Format(
        unavailable_error,
        "a stack of %zu bytes can't be allocated (%s): the address space of this process is limited "
        "(RLIMIT_AS, RLIMIT_DATA), or the machine promises no more memory than it has "
        "(vm.overcommit_memory=2), or too many threads are in deep calls. A smaller stack= may fit",
        bytes, strerror(-error));
}

static PyObject *refuse_handler(int error) {
    return PyErr_Format(unavailable_error,
                        "no deep stack can be used here (%s): its memory is opened by a handler of SIGSEGV, "
                        "which a sandbox refuses to install, or which finds no memory for a stack of its own",
                        strerror(-error));
}

/* faulthandler.enable() and disable() replace our handler by theirs. Asking faulthandler is cheaper than
 * asking the kernel, and few programs have imported it. */
static bool is_faulthandler_switched(PyObject *modules) {
    static PyObject *name, *asked_module, *is_enabled;
    static int enabled = -1;
    if (!name) name = PyUnicode_InternFromString("faulthandler");
    PyObject *module = name ? PyDict_GetItemWithError(modules, name) : NULL;
    if (module && module != asked_module) {
        Py_XDECREF(asked_module);
        Py_XDECREF(is_enabled);
        asked_module = Py_NewRef(module);
        is_enabled = PyObject_GetAttrString(module, "is_enabled");
    }
    PyObject *answer = module && is_enabled ? vectorcall(is_enabled, NULL, 0, NULL) : NULL;
    const int now = answer == Py_True;
    if (answer) Py_DECREF(answer);
    else if (PyErr_Occurred()) PyErr_Clear();
    const bool switched = now != enabled;
    enabled = now;
    return switched;
}

static PyObject *call_on(stack *s, deep_job *call, int release) {
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

PyObject *deep_run(const deep_settings *how, deep_job *call) {
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
    PyObject *modules = PyImport_GetModuleDict();
    if (greenlets_watch(modules) < 0) return NULL;
    if (is_faulthandler_switched(modules)) sigsegv_arm_process();
    stack *s;
    int result = sigsegv_arm_thread();
    if (result < 0) return refuse_handler(result);
    result = take_fitting(bytes, automatic, &s);
    if (result < 0) return refuse_take(result, automatic ? AUTOMATIC_LEAST : bytes);
    s->outer = outer;
    s->caller = __builtin_frame_address(0);
    s->crowded = crowded;
    s->name = how->name;
    return call_on(s, call, how->release);
}

PyObject *deep_run_prepare(PyObject *vrange_error) {
    *(void **)&vectorcall = dlsym(RTLD_DEFAULT, "PyObject_Vectorcall");
    if (!vectorcall) {
        PyErr_SetString(PyExc_ImportError, "this interpreter has no PyObject_Vectorcall");
        return NULL;
    }
    PyObject *bases = PyTuple_Pack(2, vrange_error, PyExc_MemoryError);
    if (!bases) return NULL;
    unavailable_error = PyErr_NewExceptionWithDoc("vrange.StackUnavailableError",
                                                  "The address space for a deep stack can't be allocated.",
                                                  bases, NULL);
    Py_DECREF(bases);
    return unavailable_error;
}
