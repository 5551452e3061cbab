/* Raises how deep one thread may recurse, for as long as it is on a deep stack.
 *
 * CPython has three kinds of limit, and a stack of any size is useless without raising them:
 *
 *   3.11         one count a thread, of Python's levels and C's together
 *   3.12, 3.13   two counts a thread; C's starts from a constant that nothing can set
 *   3.14 on      Python's count, and the bounds of the C stack, which a function sets
 *
 * Counts are raised by adding to what is left, and lowered by subtracting the same number. So other
 * threads, and a sys.setrecursionlimit() that other code calls meanwhile, are not affected. The counts are
 * fields of the thread state that no API exposes. Their offsets are known for each minor version, and are
 * used only after a test: the field must go down by one with every level and come back, and no other field
 * may. If the known offset fails the test, all offsets are tried. If none passes, deep calls are refused.
 *
 * Python gets one level for every 512 bytes of stack, and C (where it is counted apart) one for every 256.
 * json takes 144 bytes of stack a level, functools.cache 530 to 700 for its three levels. Code that takes
 * more reaches the warning zone of sigsegv.c and then gets the same RecursionError. From 3.11 on,
 * recursion in pure Python needs no C stack at all, and its limit protects the heap: a runaway recursion
 * ends when its frames and their traceback hold about as many bytes as the stack was allowed to have. */
#define _GNU_SOURCE
#include "python/stacks/recursion.h"
#include "stacks/stack_mapping.h"
#include "stacks/stack_room.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

#define PYTHON_LEVEL_BYTES 512u
#define C_LEVEL_BYTES 256u
/* The compiler multiplies a depth by 3 in an int. */
#define LEVELS_MOST 500000000u

#define WARNING_MOST (1u << 20)

#define FIELDS 64 /* ints examined from the start of a thread state: every version's is larger */
#define ABSENT (-1)

static struct {
    bool looked;
    const char *refusal;
    int python, c; /* index into the ints */
    int (*set_bounds)(PyThreadState *, void *, size_t);
    void (*reset_bounds)(PyThreadState *);
} places = {.python = ABSENT, .c = ABSENT};

static volatile int *field(PyThreadState *thread, int index) {
    return (volatile int *)(void *)thread + index;
}

static void snapshot(int *into) {
    memcpy(into, PyThreadState_Get(), FIELDS * sizeof *into);
}

/* ---- finding out which field it is ------------------------------------------------------------- */

static int only_field(const bool *candidates) {
    int found = ABSENT;
    for (int i = 0; i < FIELDS; i++) {
        if (!candidates[i]) continue;
        if (found != ABSENT) return ABSENT;
        found = i;
    }
    return found;
}

/* The field that counts levels of C: Py_EnterRecursiveCall takes one, and Py_LeaveRecursiveCall gives it
 * back. Since 3.14 no field does. */
static int see_c_field(int expected) {
    bool candidates[FIELDS];
    memset(candidates, true, sizeof candidates);
    for (int round = 0; round < 5; round++) {
        int before[FIELDS], inside[FIELDS], after[FIELDS];
        snapshot(before);
        if (Py_EnterRecursiveCall("")) {
            PyErr_Clear();
            return ABSENT;
        }
        snapshot(inside);
        Py_LeaveRecursiveCall();
        snapshot(after);
        for (int i = 0; i < FIELDS; i++)
            candidates[i] &= inside[i] == before[i] - 1 && after[i] == before[i];
    }
    if (expected != ABSENT && !candidates[expected]) expected = ABSENT;
    int only = only_field(candidates);
    return only != ABSENT ? only : expected;
}

#define PROBES 4
static int probed[PROBES][FIELDS];
static int probe;

static PyObject *take_probe(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    snapshot(probed[probe]);
    Py_RETURN_NONE;
}

static bool run_probes(const int *depths) {
    static PyMethodDef look = {"look", take_probe, METH_NOARGS, NULL};
    static const char source[] =
        "def descend(levels, look):\n"
        "    return look() if levels == 0 else descend(levels - 1, look)\n";
    PyObject *names = PyDict_New();
    PyObject *function = PyCFunction_New(&look, NULL);
    PyObject *code = Py_CompileString(source, "<vrange>", Py_file_input);
    bool done = false;
    if (names && function && code &&
        PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) == 0) {
        PyObject *ran = PyEval_EvalCode(code, names, names);
        PyObject *descend = ran ? PyDict_GetItemString(names, "descend") : NULL;
        done = descend != NULL;
        for (probe = 0; done && probe < PROBES; probe++) {
            PyObject *result = PyObject_CallFunction(descend, "iO", depths[probe], function);
            done = result != NULL;
            Py_XDECREF(result);
        }
        Py_XDECREF(ran);
    }
    Py_XDECREF(names);
    Py_XDECREF(function);
    Py_XDECREF(code);
    if (!done) PyErr_Clear();
    return done;
}

/* The field that counts levels of Python: it goes down by as many as a function calls itself. The limit is
 * the field right after it. */
static int see_python_field(int expected) {
    static const int depths[PROBES] = {0, 1, 5, 23};
    if (!run_probes(depths)) return ABSENT;
    const int limit = Py_GetRecursionLimit();
    bool candidates[FIELDS];
    for (int i = 0; i < FIELDS; i++) {
        candidates[i] = i + 1 < FIELDS && probed[0][i + 1] == limit;
        for (int round = 1; round < PROBES; round++)
            candidates[i] &= probed[round][i] == probed[0][i] - depths[round];
    }
    if (expected != ABSENT && candidates[expected]) return expected;
    return only_field(candidates);
}

/* ---- finding the fields ------------------------------------------------------------------------ */

typedef struct {
    unsigned minor;
    int python, c;
} known;

#define AT(offset) ((offset) / (int)sizeof(int))

/* offsetof(PyThreadState, recursion_remaining), or py_ and c_recursion_remaining. */
static const known known_places[] = {
    {11, AT(32), AT(32)},
    {12, AT(28), AT(36)},
    {13, AT(44), AT(52)},
    {14, AT(48), ABSENT},
    {15, AT(52), ABSENT},
};

static const char *look(void) {
    const unsigned minor = (unsigned)(Py_Version >> 16 & 0xff);
    known place = {minor, ABSENT, ABSENT};
    for (size_t i = 0; i < sizeof known_places / sizeof *known_places; i++) {
        if (known_places[i].minor == minor) place = known_places[i];
    }
    places.python = see_python_field(place.python);
    if (places.python == ABSENT)
        return "the field that holds this thread's recursion limit was not found in this interpreter";
    if (minor < 14) {
        places.c = see_c_field(place.c);
        if (places.c == ABSENT)
            return "the field that counts C recursion was not found in this interpreter";
        stack_warning_most = WARNING_MOST;
        return NULL;
    }
    *(void **)&places.set_bounds = dlsym(RTLD_DEFAULT, "PyUnstable_ThreadState_SetStackProtection");
    *(void **)&places.reset_bounds =
        dlsym(RTLD_DEFAULT, "PyUnstable_ThreadState_ResetStackProtection");
    *(void **)&stack_set_bounds = *(void **)&places.set_bounds;
    if (!places.set_bounds || !places.reset_bounds)
        return "this interpreter has no PyUnstable_ThreadState_SetStackProtection: the first release "
               "of CPython 3.14 lacks it, later ones have it";
    return NULL;
}

const char *recursion_find(void) {
    if (!places.looked) {
        places.refusal = look();
        places.looked = true;
    }
    return places.refusal;
}

/* ---- raising and restoring --------------------------------------------------------------------- */

static int levels_for(size_t bytes, size_t bytes_a_level, int left) {
    const size_t levels = bytes / bytes_a_level, there = left < 0 ? 0 : (size_t)left;
    const size_t room = there < LEVELS_MOST ? LEVELS_MOST - there : 0;
    return (int)(levels < room ? levels : room);
}

int recursion_raise(stack *s, raised_limits *out) {
    PyThreadState *thread = PyThreadState_Get();
    out->thread = thread;
    volatile int *python = field(thread, places.python);
    if (places.set_bounds && places.set_bounds(thread, s->low, s->bytes) < 0) return -1;
    /* Less address space for the stack does not mean less room for frames on the heap. */
    size_t for_frames = s->bytes;
    if (s->automatic && for_frames < VRANGE_STACK_AUTOMATIC_BYTES && places.c != places.python)
        for_frames = VRANGE_STACK_AUTOMATIC_BYTES;
    out->levels = levels_for(for_frames, PYTHON_LEVEL_BYTES, *python);
    out->python_at_entry = *python;
    out->limit_at_entry = python[1];
    out->c_levels = 0;
    if (places.c != ABSENT) {
        volatile int *c = field(thread, places.c);
        out->c_at_entry = *c;
        if (places.c != places.python) {
            out->c_levels = levels_for(s->bytes, C_LEVEL_BYTES, *c);
            *c += out->c_levels;
        }
        s->counter = c;
    }
    *python += out->levels;
    s->thread = thread;
    s->levels = python;
    s->levels_at_entry = *python;
    if (s->counter) s->counter_at_entry = *s->counter;
    return 0;
}

void recursion_restore(stack *s, const raised_limits *raised, const stack *outer) {
    PyThreadState *thread = raised->thread;
    volatile int *python = field(thread, places.python);
    s->counter = s->levels = NULL;
    s->thread = NULL;
    if (!s->was_cut) {
        *python -= raised->levels;
        if (places.c != ABSENT) *field(thread, places.c) -= raised->c_levels;
    } else {
        /* Counts were cut, perhaps while CPython was between reading and writing one. By now every level
         * has returned, so the counts are what they were, except for what sys.setrecursionlimit changed. */
        if (places.c != ABSENT) *field(thread, places.c) = raised->c_at_entry;
        *python = raised->python_at_entry + python[1] - raised->limit_at_entry;
    }
    if (!places.set_bounds) return;
    if (!outer) {
        places.reset_bounds(thread);
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    /* These bounds were accepted before. */
    if (places.set_bounds(thread, outer->low, outer->bytes) < 0) PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

PyObject *recursion_describe(void) {
    const char *refusal = recursion_find();
    int size = (int)sizeof(int);
    return Py_BuildValue("iiNz", places.python * size, places.c == ABSENT ? -1 : places.c * size,
                         PyBool_FromLong(places.set_bounds != NULL), refusal);
}

PyObject *recursion_left(void) {
    PyThreadState *thread = PyThreadState_Get();
    if (recursion_find() && places.python == ABSENT) Py_RETURN_NONE;
    const int python = *field(thread, places.python);
    if (places.c == ABSENT) return Py_BuildValue("iO", python, Py_None);
    return Py_BuildValue("ii", python, *field(thread, places.c));
}
