/* Greenlets beside deep calls: what works, and an exception instead of a crash.
 *
 * greenlet keeps all greenlets of a thread on one stack, and copies away the part that the next one needs.
 * It copies from one address to another, and between a deep stack and the thread's own stack lie gigabytes
 * of unmapped addresses. So a switch out of a deep call, to a greenlet that began outside of it, ends the
 * process, and nothing can catch that. A deep call inside a greenlet works, and so do greenlets that begin
 * and end inside the call.
 *
 * There are two ways to switch: the methods of the type (for Python), and the table of functions (for
 * gevent and other extensions). Both pass through this file once a process with greenlet makes a deep
 * call. Outside of deep calls they pass straight on. Inside one, this file allows switches to greenlets
 * that were switched out of within the same call, and to new ones; all others raise greenlet.error. When
 * the call ends, greenlets that began in it and are not finished get GreenletExit, as when greenlet drops
 * the last reference to one: their frames are on a stack that is about to be returned. */
#define PY_SSIZE_T_CLEAN
#include "stacks/stack_current.h"
#include "python/stacks/recursion.h"
#include "python/support.h"

#include "python/stacks/greenlets.h"

/* greenlet.h: the positions in the table that greenlet._C_API holds. */
enum {
    API_ERROR = 1,
    API_EXIT = 2,
    API_GET_CURRENT = 4,
    API_THROW = 5,
    API_SWITCH = 6,
    API_SET_PARENT = 7,
    API_STARTED = 9,
    API_ACTIVE = 10,
    API_GET_PARENT = 11,
};

static void **api; /* NULL: not watched */

typedef PyObject *get_current(void);
typedef PyObject *get_parent(PyObject *);
typedef int ask(PyObject *);
typedef int set_parent(PyObject *, PyObject *);
typedef PyObject *switch_to(PyObject *, PyObject *, PyObject *);
typedef PyObject *throw_into(PyObject *, PyObject *, PyObject *, PyObject *);

static switch_to *original_switch;
static throw_into *original_throw;

static PyObject *current_greenlet(void) { return ((get_current *)api[API_GET_CURRENT])(); }
static PyObject *parent_of(PyObject *g) { return ((get_parent *)api[API_GET_PARENT])(g); }
static bool is_started(PyObject *g) { return ((ask *)api[API_STARTED])(g); }
static bool is_active(PyObject *g) { return ((ask *)api[API_ACTIVE])(g); }

/* ---- which switches stay inside ---------------------------------------------------------------- */

/* gevent's hub lives as long as its thread: if it began on a deep stack, it would end with the call. */
static bool is_hub(PyObject *greenlet) {
    PyObject *module = PyDict_GetItemString(PyImport_GetModuleDict(), "gevent.hub");
    PyObject *hub = module ? PyObject_GetAttrString(module, "Hub") : NULL;
    int is = hub ? PyObject_IsInstance(greenlet, hub) : 0;
    Py_XDECREF(hub);
    if (is < 0 || PyErr_Occurred()) PyErr_Clear();
    return is > 0;
}

static bool is_known(const stack *s, PyObject *greenlet) {
    return s->greenlets && PySequence_Contains(s->greenlets, greenlet) == 1;
}

/* Whether a switch to `target` leads to frames on this stack, both now and when that greenlet has
 * finished. After that its parent continues; a finished greenlet already stands for its parent. */
static bool stays_inside(const stack *s, PyObject *target, PyObject *current) {
    if (target == current || is_known(s, target)) return true;
    if (is_active(target) || (!is_started(target) && is_hub(target))) return false;
    PyObject *parent = parent_of(target);
    bool inside = parent && stays_inside(s, parent, current);
    Py_XDECREF(parent);
    return inside;
}

static PyObject *refuse(PyObject *target) {
    return PyErr_Format(
        (PyObject *)api[API_ERROR],
        "a deep call can't be left by switching greenlets: %R began outside of it, and its frames are "
        "on another stack. Switch before or after the call, or make the deep call in a thread of its "
        "own (with gevent: get_hub().threadpool.apply(vrange.deep_call, (f,)))",
        target);
}

/* The set must not keep a greenlet alive: a finished one is freed at once, and one that nothing else refers to
 * gets GreenletExit from greenlet itself, as outside of a deep call. */
static PyObject *new_weak_set(void) {
    PyObject *module = PyImport_ImportModule("weakref");
    PyObject *type = module ? PyObject_GetAttrString(module, "WeakSet") : NULL;
    PyObject *made = type ? PyObject_CallNoArgs(type) : NULL;
    Py_XDECREF(type);
    Py_XDECREF(module);
    return made;
}

/* Whether the switch is allowed. The current greenlet is then known, because it can be switched back to. */
static bool may_switch(stack *s, PyObject *target) {
    PyObject *current = current_greenlet();
    bool may = false;
    if (current && stays_inside(s, target, current)) {
        if (!s->greenlets) s->greenlets = new_weak_set();
        PyObject *added = s->greenlets ? PyObject_CallMethod(s->greenlets, "add", "O", current) : NULL;
        may = added != NULL;
        Py_XDECREF(added);
    } else if (current) {
        refuse(target);
    }
    Py_XDECREF(current);
    return may;
}

static PyObject *watched_switch(PyObject *target, PyObject *args, PyObject *kwargs) {
    stack *s = stack_current();
    if (s && !s->is_own && !may_switch(s, target)) return NULL;
    PyObject *result = original_switch(target, args, kwargs);
    stack_set_current(s); /* other greenlets of this thread ran meanwhile */
    return result;
}

static PyObject *watched_throw(PyObject *target, PyObject *type, PyObject *value, PyObject *tb) {
    stack *s = stack_current();
    if (s && !s->is_own && !may_switch(s, target)) return NULL;
    PyObject *result = original_throw(target, type, value, tb);
    stack_set_current(s);
    return result;
}

static PyObject *method_throw(PyObject *target, PyObject *args) {
    PyObject *type = (PyObject *)api[API_EXIT], *value = NULL, *tb = NULL;
    if (!PyArg_ParseTuple(args, "|OOO:throw", &type, &value, &tb)) return NULL;
    return watched_throw(target, type, value, tb);
}

/* ---- installing the watch ---------------------------------------------------------------------- */

/* Points the method of all greenlets to `watched`. -1 if its layout is not as expected. */
static int watch_method(PyObject *greenlet, const char *name, PyCFunction watched, bool put) {
    PyMethodDef *definition = method_definition(greenlet, name);
    if (definition) {
        if (put) definition->ml_meth = watched;
        return 0;
    }
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_RuntimeError,
                     "greenlet's %s can't be watched, and a switch out of a deep call would end the "
                     "process: vrange does not know this version of greenlet",
                     name);
    return -1;
}

static int watch_methods(void) {
    PyObject *current = current_greenlet(); /* a thread's first greenlet is of the plain type */
    PyObject *main = current;
    Py_XINCREF(main);
    while (main) {
        PyObject *parent = parent_of(main);
        if (!parent) break;
        Py_DECREF(main);
        main = parent;
    }
    PyCFunction switching = (PyCFunction)(void (*)(void))watched_switch;
    int result = main ? 0 : -1;
    for (int put = 0; result == 0 && put < 2; put++) { /* both or none */
        result = watch_method(main, "switch", switching, put);
        if (result == 0) result = watch_method(main, "throw", method_throw, put);
    }
    Py_XDECREF(main);
    Py_XDECREF(current);
    return result;
}

static PyObject *loaded_greenlet(PyObject *modules) {
    static PyObject *name;
    if (!name) name = PyUnicode_InternFromString("greenlet._greenlet");
    return name ? PyDict_GetItemWithError(modules, name) : NULL;
}

int greenlets_watch(PyObject *modules) {
    if (api) return 0;
    if (!loaded_greenlet(modules)) return PyErr_Occurred() ? -1 : 0;
    void **table = PyCapsule_Import("greenlet._C_API", 0);
    if (!table) return -1;
    original_switch = (switch_to *)table[API_SWITCH];
    original_throw = (throw_into *)table[API_THROW];
    api = table;
    if (watch_methods() < 0) {
        api = NULL;
        return -1;
    }
    table[API_SWITCH] = (void *)watched_switch;
    table[API_THROW] = (void *)watched_throw;
    return 0;
}

/* ---- at the end of a call ---------------------------------------------------------------------- */

/* True if the greenlet is finished. */
static bool end_one(PyObject *greenlet, PyObject *current) {
    if (greenlet == current || !is_active(greenlet)) return true;
    if (((set_parent *)api[API_SET_PARENT])(greenlet, current) == 0) {
        PyObject *result = watched_throw(greenlet, (PyObject *)api[API_EXIT], NULL, NULL);
        if (!result) PyErr_WriteUnraisable(greenlet);
        Py_XDECREF(result);
    } else {
        PyErr_WriteUnraisable(greenlet);
    }
    return !is_active(greenlet);
}

static bool end_all(stack *s) {
    /* The order matters: list the set first, then get the current greenlet. A greenlet that another thread
     * collected is no longer in the set. It waits for its own thread, and getting the current greenlet ends
     * it. */
    PyObject *known = PySequence_List(s->greenlets);
    PyObject *current = current_greenlet();
    bool all = current && known;
    for (Py_ssize_t i = 0; known && current && i < PyList_Size(known); i++)
        all &= end_one(PyList_GetItem(known, i), current);
    Py_XDECREF(known);
    Py_XDECREF(current);
    Py_CLEAR(s->greenlets);
    return all;
}

bool greenlets_end(stack *s) {
    if (s->greenlets) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        bool all = end_all(s);
        PyErr_Restore(type, value, traceback);
        return all;
    }
    /* The greenlet module was imported within the call, so greenlets that began in it were not seen. */
    return api || !loaded_greenlet(PyImport_GetModuleDict());
}
