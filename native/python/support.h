/* What the CPython types of vrange share: making a type and the collector's questions. */
#ifndef VRANGE_SUPPORT_H
#define VRANGE_SUPPORT_H

#define PY_SSIZE_T_CLEAN
#include "python/abi3.h"

/* From this size on, copying and freeing take longer than winning the GIL back. */
#define LET_OTHERS_RUN_BYTES (1u << 20)

/* Makes a type and adds it to the module. The caller keeps the returned reference. NULL with an error set. */
PyTypeObject *add_type(PyObject *module, PyType_Spec *spec);

/* The definition of a method or function of C that `object` has as its attribute `name`: it serves every object
 * that was made of it, those bound earlier too. NULL without an error if its layout is not as expected, or with
 * one. */
PyMethodDef *method_definition(PyObject *object, const char *name);

/* What the collector asks of a type. `offsets` says where its references to Python objects are; 0 ends them. */
int visit_references(PyObject *object, const size_t *offsets, visitproc visit, void *arg);
int clear_references(PyObject *object, const size_t *offsets);
void free_collected(PyObject *object, const size_t *offsets);

#endif
