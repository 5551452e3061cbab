/* What the CPython types share; see support.h. */
#include "python/support.h"

#include <stdbool.h>
#include <string.h>

PyTypeObject *add_type(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromSpec(spec);
    if (!type) return NULL;
    const char *name = strrchr(spec->name, '.') + 1;
    return PyModule_AddObject(module, name, Py_NewRef(type)) < 0 ? NULL : (PyTypeObject *)type;
}

/* The beginning of a bound method of C, in every CPython. */
typedef struct {
    PyObject_HEAD
    PyMethodDef *definition;
} bound_method;

PyMethodDef *method_definition(PyObject *object, const char *name) {
    PyObject *bound = PyObject_GetAttrString(object, name);
    PyMethodDef *definition = NULL;
    if (bound && PyObject_TypeCheck(bound, &PyCFunction_Type)) definition = ((bound_method *)bound)->definition;
    const bool is_known = definition && definition->ml_meth == PyCFunction_GetFunction(bound) &&
                          strcmp(definition->ml_name, name) == 0;
    Py_XDECREF(bound);
    return is_known ? definition : NULL;
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
