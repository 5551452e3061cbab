/* ndarrays: their layout, and making one over a lease.
 *
 * numpy.ndarray(shape, dtype, lease) spends most of its time on parsing its arguments, which are the same at
 * every hit. So they are parsed once for all arrays of a shape and type, and a hit calls the function that
 * NumPy exports for extension modules. numpy_table.h has its place. NumPy's macros fix how an array begins. */
#include "python/cache/ndarray.h"

#include <stdint.h>
#include <string.h>

#include "python/lease.h"
#include "python/numpy_table.h"

/* As in numpy/ndarraytypes.h. Without its flag, an array is not writeable. */
enum {
    C_CONTIGUOUS = 0x1,
    F_CONTIGUOUS = 0x2,
    ALIGNED = 0x100,
};

#define DIMENSIONS_MOST 64
#define KNOWN_VIEWERS 64

/* As in numpy/ndarraytypes.h, up to the last field that is read here. */
typedef struct {
    PyObject_HEAD
    char *data;
    int dimensions;
    intptr_t *shape, *strides;
    PyObject *base, *dtype;
    int flags;
} ndarray;

typedef PyObject *new_from_descr(PyTypeObject *, PyObject *, int, const intptr_t *, const intptr_t *,
                                 void *, int, PyObject *);

static struct {
    PyTypeObject *array;
    new_from_descr *create; /* takes over the reference to the dtype */
    int (*set_base)(PyObject *array, PyObject *base); /* takes over the reference to the base */
} numpy;

typedef struct {
    PyObject_HEAD
    PyObject *dtype;
    Py_ssize_t bytes;
    int order, dimensions;
    intptr_t shape[];
} viewer;

static PyTypeObject *viewer_type;

/* One viewer serves all arrays of a shape and type, so that entries share it and hits find it in the
 * processor's caches. It is known at a place by hash, where a newer viewer replaces it. */
static viewer *known_viewers[KNOWN_VIEWERS];

static viewer **place_of_viewer(const PyObject *dtype, int dimensions, const intptr_t *shape) {
    uint64_t hash = (uintptr_t)dtype;
    for (int i = 0; i < dimensions; i++) hash = (hash ^ (uint64_t)shape[i]) * 0x9e3779b97f4a7c15u;
    return &known_viewers[(hash ^ hash >> 32) % KNOWN_VIEWERS];
}

static bool is_alike(const viewer *v, const PyObject *dtype, int dimensions, const intptr_t *shape) {
    if (v->dtype != dtype || v->dimensions != dimensions) return false;
    if (dimensions == 0) return true; /* its shape is NULL, which memcmp may not get */
    return memcmp(v->shape, shape, (size_t)dimensions * sizeof *shape) == 0;
}

PyObject *viewer_of_array(PyObject *object) {
    const ndarray *array = (const ndarray *)object;
    if (Py_TYPE(object) != numpy.array || !(array->flags & C_CONTIGUOUS)) return NULL;
    viewer *known = *place_of_viewer(array->dtype, array->dimensions, array->shape);
    const bool fits = known && known->order == C_CONTIGUOUS &&
                      is_alike(known, array->dtype, array->dimensions, array->shape);
    return fits ? (PyObject *)known : NULL;
}

vrange_part array_content(PyObject *array, PyObject *its_viewer) {
    return (vrange_part){((const ndarray *)array)->data, (size_t)((const viewer *)its_viewer)->bytes};
}

bool is_viewer(PyObject *object) { return Py_TYPE(object) == viewer_type; }

static PyObject *view(const viewer *self, void *address, Py_ssize_t bytes, PyObject *base) {
    if (bytes < self->bytes)
        return PyErr_Format(PyExc_TypeError, "%zd bytes are not enough: %zd are viewed", bytes, self->bytes);
    PyObject *array = numpy.create(numpy.array, Py_NewRef(self->dtype), self->dimensions, self->shape,
                                   NULL, address, self->order | ALIGNED, NULL);
    if (array && numpy.set_base(array, Py_NewRef(base)) < 0) Py_CLEAR(array);
    return array;
}

PyObject *view_lease(PyObject *self, PyObject *lease) {
    Py_ssize_t bytes;
    void *address = lease_memory(lease, &bytes);
    return address ? view((viewer *)self, address, bytes, lease) : NULL;
}

PyObject *view_bytes(PyObject *self, PyObject *bytes) {
    return view((viewer *)self, PyBytes_AsString(bytes), PyBytes_Size(bytes), bytes);
}

bool is_array(PyObject *object) { return Py_TYPE(object) == numpy.array; }

PyObject *view_again(PyObject *self, PyObject *array) {
    const ndarray *made = (const ndarray *)array;
    return view((viewer *)self, made->data, ((viewer *)self)->bytes, made->base);
}

bool is_as_made(PyObject *object, PyObject *by) {
    const ndarray *array = (const ndarray *)object;
    const viewer *v = (const viewer *)by;
    return (array->flags & v->order) && is_alike(v, array->dtype, array->dimensions, array->shape);
}

PyObject *view_of_array(PyObject *object) {
    const ndarray *of = (const ndarray *)object;
    const int flags = of->flags & (C_CONTIGUOUS | F_CONTIGUOUS | ALIGNED);
    PyObject *array = numpy.create(numpy.array, Py_NewRef(of->dtype), of->dimensions, of->shape,
                                   of->strides, of->data, flags, NULL);
    if (array && numpy.set_base(array, Py_NewRef(object)) < 0) Py_CLEAR(array);
    return array;
}

static PyObject *viewer_call(PyObject *self, PyObject *args, PyObject *kwargs) {
    PyObject *lease;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "view(lease)");
    return PyArg_ParseTuple(args, "O", &lease) ? view_lease(self, lease) : NULL;
}

static int connect_to_numpy(PyObject *capsule) {
    void **table = PyCapsule_GetPointer(capsule, NULL);
    if (!table) return -1;
    numpy.array = table[NUMPY_ARRAY_TYPE];
    *(void **)&numpy.set_base = table[NUMPY_SET_BASE_OBJECT];
    *(void **)&numpy.create = table[NUMPY_NEW_FROM_DESCR];
    return 0;
}

static Py_ssize_t item_bytes(PyObject *dtype) {
    PyObject *size = PyObject_GetAttrString(dtype, "itemsize");
    Py_ssize_t bytes = size ? PyLong_AsSsize_t(size) : -1;
    Py_XDECREF(size);
    return bytes;
}

static PyObject *viewer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *capsule, *shape, *dtype;
    int fortran;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "Viewer takes no names");
    if (!PyArg_ParseTuple(args, "OO!Op", &capsule, &PyTuple_Type, &shape, &dtype, &fortran)) return NULL;
    const Py_ssize_t dimensions = PyTuple_Size(shape);
    if (dimensions > DIMENSIONS_MOST)
        return PyErr_Format(PyExc_ValueError, "%zd dimensions are too many", dimensions);
    if (connect_to_numpy(capsule) < 0) return NULL;
    Py_ssize_t bytes = item_bytes(dtype);
    if (bytes < 0) return NULL;
    viewer *self = PyObject_Malloc(sizeof *self + (size_t)dimensions * sizeof *self->shape);
    if (!self) return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < dimensions; i++) {
        self->shape[i] = PyLong_AsSsize_t(PyTuple_GetItem(shape, i));
        if (self->shape[i] < 0 || __builtin_mul_overflow(bytes, self->shape[i], &bytes)) {
            PyObject_Free(self);
            return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "not a shape: %R", shape);
        }
    }
    self->dtype = Py_NewRef(dtype);
    self->bytes = bytes;
    self->order = fortran ? F_CONTIGUOUS : C_CONTIGUOUS;
    self->dimensions = (int)dimensions;
    PyObject_Init((PyObject *)self, type);
    viewer **place = place_of_viewer(dtype, self->dimensions, self->shape), *known = *place;
    if (known && known->order == self->order && is_alike(known, dtype, self->dimensions, self->shape)) {
        Py_DECREF((PyObject *)self);
        return Py_NewRef((PyObject *)known);
    }
    *place = (viewer *)Py_NewRef((PyObject *)self);
    Py_XDECREF((PyObject *)known);
    return (PyObject *)self;
}

static void viewer_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    Py_DECREF(((viewer *)object)->dtype);
    PyObject_Free(object);
    Py_DECREF(type);
}

int ndarray_add_type(PyObject *module) {
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Viewer(table, shape, dtype, fortran)\n\n"
                    "viewer(lease): a read-only ndarray over the memory that the lease pins. The array keeps "
                    "the lease alive. Viewers of one shape and dtype are usually one object. `table` is "
                    "NumPy's _ARRAY_API, and `dtype` one of its own simple types."},
        {Py_tp_new, viewer_new},
        {Py_tp_dealloc, viewer_dealloc},
        {Py_tp_call, viewer_call},
        {0, NULL}};
    /* Not collected: a simple dtype refers to nothing. */
    static PyType_Spec spec = {.name = "vrange._hit.Viewer",
                               .basicsize = sizeof(viewer),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                               .slots = slots};
    viewer_type = add_type(module, &spec);
    return viewer_type ? 0 : -1;
}
