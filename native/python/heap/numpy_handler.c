/* The extension module vrange._numpy_handler: gives NumPy's arrays memory from the heap (NEP 49).
 *
 * NumPy asks a handler for the memory of arrays, and each array remembers its handler. So a handler that was
 * used once must exist forever: ours are constants of the library, which is never unloaded. Small blocks pass
 * through to NumPy's own handler, which keeps the smallest ones for their next use. The address of a block
 * tells which handler it belongs to.
 *
 * NumPy keeps the handler in a context variable. A framework that runs each task in a context of its own, as
 * Dask and asyncio do, is out of reach of a handler set elsewhere. All contexts without a handler share the
 * variable's default: one capsule, whose pointer NumPy reads at each call. So "in all contexts" replaces that
 * pointer. It never becomes NumPy's again, because arrays that got their memory through it meanwhile are freed
 * through it: `after` allocates as NumPy does, and still frees the heap's blocks.
 *
 * This file needs no NumPy headers. It finds the functions in the table that NumPy exports for extension
 * modules; places in that table never change (numpy/_core/code_generators/numpy_api.py). */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include "python/abi3.h"
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "heap/heap.h"
#include "python/numpy_table.h"
#include "reserve/return_space.h"

/* As in numpy/ndarraytypes.h since 1.22. */
typedef struct {
    void *context;
    void *(*allocate)(void *context, size_t bytes);
    void *(*allocate_zeroed)(void *context, size_t count, size_t bytes);
    void *(*resize)(void *context, void *block, size_t bytes);
    void (*release)(void *context, void *block, size_t bytes);
} data_allocator;

typedef struct {
    char name[127];
    uint8_t version;
    data_allocator allocator;
} data_handler;

#define CAPSULE_NAME "mem_handler"
#define HANDLER_VERSION 1
#define NUMPYS_NAME "default_allocator"
#define ADOPTED_BYTES_MOST ((size_t)1 << 20)

#define FEATURE_VERSION_1_22 0x0000000f

static struct {
    PyObject *(*set)(PyObject *capsule);
    PyObject *(*get)(void);
    data_allocator below;      /* NumPy's own */
    PyObject *capsule;         /* of our handler; never freed */
    PyObject *default_capsule; /* of contexts without a handler; NumPy never frees it */
    unsigned uses_as_default;  /* guarded by the GIL */
} numpy;

/* ---- the handler: NumPy calls it with the GIL held ---------------------------------------------- */

/* A block that the heap had no room for is NumPy's next. */
static void *take(size_t bytes, size_t *stale) {
    void *block = heap_allocate(bytes, stale);
    if (!block && bytes >= HEAP_BLOCK_BYTES_LEAST) return_space_for(bytes);
    return block;
}

static void *allocate(void *unused, size_t bytes) {
    (void)unused;
    size_t stale;
    void *block = take(bytes, &stale);
    return block ? block : numpy.below.allocate(numpy.below.context, bytes);
}

static void *allocate_zeroed(void *unused, size_t count, size_t bytes) {
    (void)unused;
    size_t all, stale;
    void *block = NULL;
    if (!__builtin_mul_overflow(count, bytes, &all)) block = take(all, &stale);
    if (!block) return numpy.below.allocate_zeroed(numpy.below.context, count, bytes);
    heap_clear(block, stale);
    return block;
}

static void release(void *unused, void *block, size_t bytes) {
    (void)unused;
    if (heap_has(block)) heap_free(block);
    else numpy.below.release(numpy.below.context, block, bytes);
}

/* NumPy does not pass the size of the old block. The heap knows its own blocks' sizes, but not those of
 * blocks from below: such a block is resized below and then copied once more into the heap. The copy pays for
 * arrays that grow step by step. It is too expensive for a block that is large at once, which stays below. */
static void *resize_from_below(void *block, size_t bytes) {
    const data_allocator *below = &numpy.below;
    void *resized = below->resize(below->context, block, bytes);
    size_t stale;
    if (!resized || bytes > ADOPTED_BYTES_MOST) return resized;
    void *adopted = heap_allocate(bytes, &stale);
    if (!adopted) return resized;
    memcpy(adopted, resized, bytes);
    below->release(below->context, resized, bytes);
    return adopted;
}

static void *resize(void *unused, void *block, size_t bytes) {
    if (!block) return allocate(unused, bytes);
    if (!heap_has(block)) return resize_from_below(block, bytes);
    if (bytes >= HEAP_BLOCK_BYTES_LEAST && heap_resize(block, bytes)) return block;
    const size_t held = heap_block_bytes(block);
    void *moved = allocate(unused, bytes ? bytes : 1);
    if (!moved) return NULL;
    memcpy(moved, block, held < bytes ? held : bytes);
    heap_free(block);
    return moved;
}

static void *allocate_below(void *unused, size_t bytes) {
    (void)unused;
    return numpy.below.allocate(numpy.below.context, bytes);
}

static void *allocate_zeroed_below(void *unused, size_t count, size_t bytes) {
    (void)unused;
    return numpy.below.allocate_zeroed(numpy.below.context, count, bytes);
}

/* A block of the heap that grows stays there: its place below would cost a copy that `below` can't make. */
static void *resize_after(void *unused, void *block, size_t bytes) {
    if (block && heap_has(block)) return resize(unused, block, bytes);
    return numpy.below.resize(numpy.below.context, block, bytes);
}

static data_handler handler = {
    .name = "vrange",
    .version = HANDLER_VERSION,
    .allocator = {NULL, allocate, allocate_zeroed, resize, release},
};

/* The default of contexts without a handler, once the last use in all contexts has ended. */
static data_handler after = {
    .name = NUMPYS_NAME,
    .version = HANDLER_VERSION,
    .allocator = {NULL, allocate_below, allocate_zeroed_below, resize_after, release},
};

/* ---- the module ---------------------------------------------------------------------------------- */

static const data_handler *handler_of(PyObject *capsule) {
    return PyCapsule_GetPointer(capsule, CAPSULE_NAME);
}

/* Implements connect(table): returns NULL, or why this NumPy can't be used. */
static const char *connect_to(void **table) {
    unsigned (*feature_version)(void);
    *(void **)&feature_version = table[NUMPY_FEATURE_VERSION];
    if (feature_version() < FEATURE_VERSION_1_22)
        return "NumPy before 1.22 accepts no other allocator (NEP 49)";
    PyObject **default_capsule = table[NUMPY_DEFAULT_HANDLER];
    const data_handler *below = handler_of(*default_capsule);
    if (!below) {
        PyErr_Clear();
        return "NumPy's own handler is not where it should be";
    }
    if (below->version != HANDLER_VERSION) return "NumPy's handlers have another version than 1";
    *(void **)&numpy.set = table[NUMPY_SET_HANDLER];
    *(void **)&numpy.get = table[NUMPY_GET_HANDLER];
    numpy.below = below->allocator;
    numpy.default_capsule = *default_capsule;
    return NULL;
}

static PyObject *py_connect(PyObject *module, PyObject *table) {
    (void)module;
    if (!numpy.capsule) {
        void **functions = PyCapsule_GetPointer(table, NULL);
        if (!functions) return NULL;
        const char *refusal = connect_to(functions);
        if (refusal) return PyUnicode_FromString(refusal);
        int result = heap_open("numpy");
        if (result < 0) {
            errno = -result;
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        numpy.capsule = PyCapsule_New(&handler, CAPSULE_NAME, NULL);
        if (!numpy.capsule) return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *py_set(PyObject *module, PyObject *capsule) {
    (void)module;
    if (!numpy.capsule) return PyErr_Format(PyExc_RuntimeError, "not connected to NumPy");
    if (capsule == Py_None) capsule = numpy.capsule;
    if (!handler_of(capsule)) return NULL;
    return numpy.set(capsule);
}

static PyObject *py_get(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    if (!numpy.capsule) return PyErr_Format(PyExc_RuntimeError, "not connected to NumPy");
    return numpy.get();
}

static PyObject *py_use_as_default(PyObject *module, PyObject *begins) {
    (void)module;
    const int truth = PyObject_IsTrue(begins);
    if (truth < 0) return NULL;
    if (!numpy.capsule) return PyErr_Format(PyExc_RuntimeError, "not connected to NumPy");
    if (!truth && numpy.uses_as_default == 0)
        return PyErr_Format(PyExc_RuntimeError, "vrange's handler is not the default");
    const unsigned uses = truth ? numpy.uses_as_default + 1 : numpy.uses_as_default - 1;
    if (PyCapsule_SetPointer(numpy.default_capsule, uses ? &handler : &after) < 0) return NULL;
    numpy.uses_as_default = uses;
    Py_RETURN_NONE;
}

static PyObject *py_name(PyObject *module, PyObject *capsule) {
    (void)module;
    const data_handler *one = handler_of(capsule);
    if (!one) return NULL;
    return PyUnicode_FromStringAndSize(one->name, (Py_ssize_t)strnlen(one->name, sizeof one->name));
}

static PyObject *py_use_huge_pages(PyObject *module, PyObject *use) {
    (void)module;
    const int truth = PyObject_IsTrue(use);
    if (truth < 0) return NULL;
    heap_use_huge_pages(truth);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"connect", py_connect, METH_O,
     "connect(table): finds NumPy's functions. Returns None, or why this NumPy can't be used."},
    {"set", py_set, METH_O,
     "set(capsule): sets the handler of this context (None: vrange's). Returns the one before."},
    {"get", py_get, METH_NOARGS, "get(): the handler of this context."},
    {"use_as_default", py_use_as_default, METH_O,
     "use_as_default(begins): begins or ends one use of vrange's handler in all contexts without a handler."},
    {"name", py_name, METH_O, "name(capsule): the name of a handler."},
    {"use_huge_pages", py_use_huge_pages, METH_O,
     "use_huge_pages(use): sets whether new blocks that are large enough get huge pages."},
    {0}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                        .m_name = "vrange._numpy_handler",
                                        .m_doc = "NumPy's array data from vrange's heap (NEP 49).",
                                        .m_size = -1, /* one state a process, as the core has */
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit__numpy_handler(void) { return PyModule_Create(&definition); }
