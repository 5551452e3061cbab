/* The decorated function: a callable that answers from a cache.
 *
 * Most calls of a decorated function are hits, so a hit must cost no more than with functools.lru_cache. The
 * key is made directly from the vector of arguments that the interpreter passes. A tuple and a dict of the
 * arguments are made only for a call that computes. */
#include "python/cache/call.h"

#include <stddef.h>
#include <structmember.h>

#include "python/cache/cache.h"
#include "python/cache/call_key.h"
#include "python/cache/compute.h"
#include "python/cache/lookup.h"
#include "python/cache/refresh.h"
#include "python/cache/shared_reads.h"

/* Both flags are part of the stable ABI from 3.12 on, and have the same values in 3.11. */
#define HAVE_VECTORCALL (1ul << 11)
#define METHOD_DESCRIPTOR (1ul << 17)
typedef PyObject *(*vector_function)(PyObject *, PyObject *const *, size_t, PyObject *);

typedef struct {
    PyObject_HEAD
    vector_function vector;
    cache_core *core;
    PyObject *function;
    key_rule rule;        /* owns its function */
    PyObject *reads;      /* the lookups of a cache that processes share; NULL: its cache is its own */
    PyObject *make_key;   /* of such a cache: called with a tuple and a dict of the arguments */
    PyObject *answer;     /* of such a cache: called with the key and both, if a lookup finds nothing */
    PyObject *attributes; /* __dict__ */
    PyObject *weak_references;
} cached_function;

/* Functions of vrange._cache, which registers them with use_in_calls. */
static PyObject *bind_method; /* called with a function and an instance or a class */
static PyObject *reduce_call; /* called with a function */
static PyObject *refuse_key;  /* called with a function and a key that can't be hashed */

/* ---- calls ------------------------------------------------------------------------------------ */

/* A memoised recursion has these frames on the stack once per level. So the hit and the computation are
 * separate functions, and call_vector ends with the call to compute(): the compiler can reuse its frame. */

typedef struct {
    PyObject *value; /* LOOKUP_FOUND */
    int result;
    uint32_t stamp; /* found: of the stale value; 0: it is fresh */
    missed_key missed;
} hit;

/* Replaces the TypeError of an unhashable key with one that says how to solve it. */
static void refuse(const cached_function *self, PyObject *key) {
    PyObject *type, *error, *traceback;
    if (!refuse_key || !PyErr_ExceptionMatches(PyExc_TypeError)) return;
    PyErr_Fetch(&type, &error, &traceback);
    PyObject *accepted = PyObject_CallFunctionObjArgs(refuse_key, self->function, key, NULL);
    if (accepted) {
        Py_DECREF(accepted);
        PyErr_Restore(type, error, traceback);
        return;
    }
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
}

__attribute__((noinline)) static hit look_up(const cached_function *self, PyObject *key) {
    looked_up found = {.stale = STALE_IS_TAKEN};
    hit h = {.result = LOOKUP_FAILED};
    if (hash_key(key, &h.missed.hash)) h.result = core_look_up(self->core, key, h.missed.hash, &found);
    else refuse(self, key);
    h.missed.version = found.version;
    h.value = h.result == LOOKUP_FOUND ? found.value : NULL;
    h.stamp = h.value ? found.stamp : 0;
    return h;
}

/* Steals the key. */
__attribute__((noinline)) static PyObject *compute(const cached_function *self, PyObject *key,
                                                   missed_key missed, PyObject *const *values,
                                                   size_t count, PyObject *names) {
    const arguments given = arguments_of(values, count, names);
    const bool is_plain = !self->rule.function && !self->rule.typed && !given.named && PyTuple_CheckExact(key);
    PyObject *args = is_plain ? Py_NewRef(key) : positional_tuple(&given);
    PyObject *kwargs = args && given.named ? named_dict(&given) : NULL;
    if (args && (kwargs || !given.named))
        return core_answer(self->core, key, missed, self->function, args, kwargs);
    Py_XDECREF(args);
    Py_DECREF(key);
    return NULL;
}

/* Steals the key. */
__attribute__((noinline)) static PyObject *refresh(const cached_function *self, PyObject *key, hit h,
                                                   const arguments *given) {
    PyObject *args = positional_tuple(given), *kwargs = args && given->named ? named_dict(given) : NULL;
    if (given->named && !kwargs) Py_CLEAR(args);
    const refresh_call call = {self->core, key, h.stamp, self->function, args, kwargs, NULL};
    PyObject *value = refresh_stale(&call, h.value);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_DECREF(key);
    return value;
}

/* A call whose result processes share. Its key is made of objects that they all know. */
__attribute__((noinline)) static PyObject *call_shared(const cached_function *self, const arguments *given) {
    const bool is_plain = !self->rule.function && !self->rule.typed && !given->named;
    PyObject *args = positional_tuple(given), *kwargs = NULL, *key = NULL, *value = NULL;
    if (args && is_plain) key = Py_NewRef(args);
    else if (args && (kwargs = named_dict(given)))
        key = PyObject_CallFunctionObjArgs(self->make_key, args, kwargs, NULL);
    if (key) value = shared_reads_find(self->reads, key);
    /* The answer says what is wrong with a key that can't be hashed. */
    if (key && !value && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_TypeError)) PyErr_Clear();
    if (key && !value && !PyErr_Occurred() && (kwargs || (kwargs = named_dict(given))))
        value = PyObject_CallFunctionObjArgs(self->answer, key, args, kwargs, NULL);
    Py_XDECREF(key);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    return value;
}

static PyObject *call_vector(PyObject *object, PyObject *const *values, size_t count, PyObject *names) {
    const cached_function *self = (cached_function *)object;
    if (self->reads) {
        const arguments given = arguments_of(values, count, names);
        return call_shared(self, &given);
    }
    PyObject *key = key_of_vector(&self->rule, values, count, names);
    if (!key) return NULL;
    const hit h = look_up(self, key);
    if (h.result == LOOKUP_ABSENT || h.result == LOOKUP_UNDER_WAY)
        return compute(self, key, h.missed, values, count, names);
    if (h.stamp) {
        const arguments given = arguments_of(values, count, names);
        return refresh(self, key, h, &given);
    }
    Py_DECREF(key);
    return h.value;
}

/* Calls `use` with the items of a tuple and a dict as a vector of arguments. */
static PyObject *with_vector(cached_function *self, PyObject *args, PyObject *kwargs,
                             PyObject *(*use)(cached_function *, const arguments *)) {
    arguments given = {.positional = PyTuple_Size(args), .named = kwargs ? PyDict_Size(kwargs) : 0};
    const Py_ssize_t all = given.positional + given.named;
    PyObject *few[8], **values = all <= 8 ? few : PyMem_Malloc((size_t)all * sizeof *values);
    given.names = given.named ? PyTuple_New(given.named) : NULL;
    PyObject *result = NULL, *name, *value;
    if (!values) {
        PyErr_NoMemory();
    } else if (given.names || !given.named) {
        Py_ssize_t place = 0, at = given.positional;
        for (Py_ssize_t i = 0; i < given.positional; i++) values[i] = PyTuple_GetItem(args, i);
        while (given.named && PyDict_Next(kwargs, &place, &name, &value)) {
            PyTuple_SetItem(given.names, at - given.positional, Py_NewRef(name));
            values[at++] = value;
        }
        given.values = values;
        for (Py_ssize_t i = 0; i < all; i++) Py_INCREF(values[i]);
        result = use(self, &given);
        for (Py_ssize_t i = 0; i < all; i++) Py_DECREF(values[i]);
    }
    if (values != few) PyMem_Free(values);
    Py_XDECREF(given.names);
    return result;
}

static PyObject *answer(cached_function *self, const arguments *given) {
    return call_vector((PyObject *)self, given->values, (size_t)given->positional, given->names);
}

static PyObject *call(PyObject *object, PyObject *args, PyObject *kwargs) {
    return with_vector((cached_function *)object, args, kwargs, answer);
}

static PyObject *key_of_call(cached_function *self, const arguments *given) {
    return make_key(&self->rule, given);
}

static PyObject *call_make_key(PyObject *object, PyObject *both) {
    PyObject *args, *kwargs;
    if (!PyArg_ParseTuple(both, "O!O!", &PyTuple_Type, &args, &PyDict_Type, &kwargs)) return NULL;
    return with_vector((cached_function *)object, args, kwargs, key_of_call);
}

/* ---- the type --------------------------------------------------------------------------------- */

static PyObject *call_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"core", "function", "key", "typed", NULL};
    PyObject *core, *function, *key = Py_None;
    int typed = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|Op", names, &core, &function, &key, &typed)) return NULL;
    if (!is_core(core)) return PyErr_Format(PyExc_TypeError, "core must be a CacheCore, not %R", core);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    cached_function *self = (cached_function *)allocate(type, 0);
    if (!self) return NULL;
    self->vector = call_vector;
    self->core = (cache_core *)Py_NewRef(core);
    self->function = Py_NewRef(function);
    self->rule = (key_rule){.function = key == Py_None ? NULL : Py_NewRef(key), .typed = typed};
    return (PyObject *)self;
}

/* Sets the function and the key function of an object that was made with None. */
static PyObject *call_fill(PyObject *object, PyObject *args) {
    cached_function *self = (cached_function *)object;
    PyObject *function, *key;
    int typed;
    if (!PyArg_ParseTuple(args, "OOp", &function, &key, &typed)) return NULL;
    if (self->function != Py_None) return PyErr_Format(PyExc_RuntimeError, "it has a function");
    PyObject *none = self->function;
    self->function = Py_NewRef(function);
    self->rule = (key_rule){.function = key == Py_None ? NULL : Py_NewRef(key), .typed = typed};
    Py_DECREF(none);
    Py_RETURN_NONE;
}

/* Makes it a function whose results processes share. */
static PyObject *call_share(PyObject *object, PyObject *args) {
    cached_function *self = (cached_function *)object;
    PyObject *reads, *make_key, *answer;
    if (!PyArg_ParseTuple(args, "OOO", &reads, &make_key, &answer)) return NULL;
    if (!is_shared_reads(reads))
        return PyErr_Format(PyExc_TypeError, "reads must be SharedReads, not %R", reads);
    if (self->reads) return PyErr_Format(PyExc_RuntimeError, "it is shared");
    self->make_key = Py_NewRef(make_key);
    self->answer = Py_NewRef(answer);
    self->reads = Py_NewRef(reads);
    Py_RETURN_NONE;
}

static const size_t references[] = {offsetof(cached_function, core), offsetof(cached_function, function),
                                    offsetof(cached_function, rule.function), offsetof(cached_function, reads),
                                    offsetof(cached_function, make_key), offsetof(cached_function, answer),
                                    offsetof(cached_function, attributes), 0};

static int call_traverse(PyObject *object, visitproc visit, void *arg) {
    return visit_references(object, references, visit, arg);
}

/* A finalizer in the same cycle may still call the object. So the core stays, and the function becomes None. */
static int call_clear(PyObject *object) {
    cached_function *self = (cached_function *)object;
    PyObject *function = self->function;
    self->function = Py_NewRef(Py_None);
    Py_XDECREF(function);
    Py_CLEAR(self->attributes);
    return 0;
}

static void call_dealloc(PyObject *object) {
    PyObject_GC_UnTrack(object);
    if (((cached_function *)object)->weak_references) PyObject_ClearWeakRefs(object);
    free_collected(object, references);
}

static PyObject *call_get(PyObject *object, PyObject *instance, PyObject *owner) {
    (void)owner;
    if (!instance || instance == Py_None || !bind_method) return Py_NewRef(object);
    return PyObject_CallFunctionObjArgs(bind_method, object, instance, NULL);
}

static PyObject *call_reduce(PyObject *object, PyObject *unused) {
    (void)unused;
    if (!reduce_call) return PyErr_Format(PyExc_TypeError, "vrange._cache.cached was not imported");
    return PyObject_CallFunctionObjArgs(reduce_call, object, NULL);
}

/* Copying a function returns the function itself. */
static PyObject *call_copy(PyObject *object, PyObject *unused) {
    (void)unused;
    return Py_NewRef(object);
}

static PyObject *call_repr(PyObject *object) {
    PyObject *cache = PyObject_GetAttrString(object, "cache");
    if (!cache) return NULL;
    PyObject *text = PyUnicode_FromFormat("<cached %R in %R>", ((cached_function *)object)->function, cache);
    Py_DECREF(cache);
    return text;
}

static PyObject *use_in_calls(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *bind, *reduce, *refuse;
    if (!PyArg_ParseTuple(args, "OOO", &bind, &reduce, &refuse)) return NULL;
    Py_XDECREF(bind_method);
    Py_XDECREF(reduce_call);
    Py_XDECREF(refuse_key);
    bind_method = Py_NewRef(bind);
    reduce_call = Py_NewRef(reduce);
    refuse_key = Py_NewRef(refuse);
    Py_RETURN_NONE;
}

int call_add_type(PyObject *module) {
    static PyMethodDef functions[] = {
        {"use_in_calls", use_in_calls, METH_VARARGS,
         "use_in_calls(bind, reduce, refuse): bind(function, instance) makes a method, reduce(function) "
         "pickles, refuse(function, key) raises for a key that can't be hashed."},
        {0}};
    static PyMethodDef methods[] = {
        {"make_key", call_make_key, METH_VARARGS,
         "make_key(args, kwargs): the key under which a call is cached."},
        {"fill", call_fill, METH_VARARGS,
         "fill(function, key, typed): sets the function of an object that was made with None."},
        {"share", call_share, METH_VARARGS,
         "share(reads, make_key, answer): processes share its results. make_key(args, kwargs) makes the key; "
         "answer(key, args, kwargs) is called if a lookup finds nothing."},
        {"__reduce__", call_reduce, METH_NOARGS, NULL},
        {"__copy__", call_copy, METH_NOARGS, NULL},
        {"__deepcopy__", call_copy, METH_O, NULL},
        {0}};
    static PyMemberDef members[] = {
        {"__vectorcalloffset__", T_PYSSIZET, offsetof(cached_function, vector), READONLY, NULL},
        {"__dictoffset__", T_PYSSIZET, offsetof(cached_function, attributes), READONLY, NULL},
        {"__weaklistoffset__", T_PYSSIZET, offsetof(cached_function, weak_references), READONLY, NULL},
        {0}};
    static PyGetSetDef dict[] = {{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
                                 {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "CachedFunction(core, function, key=None, typed=False)\n\n"
                    "A function whose results are cached; see vrange.cached."},
        {Py_tp_new, call_new},
        {Py_tp_dealloc, call_dealloc},
        {Py_tp_traverse, call_traverse},
        {Py_tp_clear, call_clear},
        {Py_tp_call, call},
        {Py_tp_repr, call_repr},
        {Py_tp_descr_get, call_get},
        {Py_tp_methods, methods},
        {Py_tp_members, members},
        {Py_tp_getset, dict},
        {0, NULL}};
    static PyType_Spec spec = {.name = "vrange._hit.CachedFunction",
                               .basicsize = sizeof(cached_function),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | HAVE_VECTORCALL |
                                        METHOD_DESCRIPTOR,
                               .slots = slots};
    if (!call_key_start(module) || !add_type(module, &spec)) return -1;
    return PyModule_AddFunctions(module, functions);
}
