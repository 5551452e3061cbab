/* What the CPython types share; see support.h. */
#include "python/support.h"

#include <string.h>

PyTypeObject *add_type(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromSpec(spec);
    if (!type) return NULL;
    const char *name = strrchr(spec->name, '.') + 1;
    return PyModule_AddObject(module, name, Py_NewRef(type)) < 0 ? NULL : (PyTypeObject *)type;
}

static PyObject **reference_at(PyObject *object, size_t offset) {
    return (PyObject **)(void *)((char *)object + offset);
}

int visit_references(PyObject *object, const size_t *offsets, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    for (; *offsets; offsets++) Py_VISIT(*reference_at(object, *offsets));
    return 0;
}

int clear_references(PyObject *object, const size_t *offsets) {
    for (; *offsets; offsets++) Py_CLEAR(*reference_at(object, *offsets));
    return 0;
}

void free_collected(PyObject *object, const size_t *offsets) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    clear_references(object, offsets);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}
