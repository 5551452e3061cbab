/* Entries: what a cache knows of a value that has a range of its own. The range lives as long as its entry
 * at most, so that whatever interrupts its cache, none is left that nobody knows. */
#include "python/hit.h"

#include <stddef.h>
#include <structmember.h>

static PyTypeObject *entry_type;

bool is_entry(PyObject *object) { return Py_TYPE(object) == entry_type; }

PyObject *entry_make(cache_entry content) {
    cache_entry *self = PyObject_New(cache_entry, entry_type);
    if (!self) return NULL;
    self->handle = content.handle;
    self->nbytes = content.nbytes;
    self->decode = Py_NewRef(content.decode);
    self->expires = content.expires;
    self->weight = -1;
    self->views = content.views;
    self->array = content.array;
    self->copies = content.copies;
    return (PyObject *)self;
}

static PyObject *entry_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"lease", "nbytes", "decode", "views", "array", "expires", "copies", NULL};
    cache_entry content = {.copies = 0};
    PyObject *lease;
    int views, array;
    (void)type;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OnOppd|n", names, &lease, &content.nbytes,
                                     &content.decode, &views, &array, &content.expires,
                                     &content.copies))
        return NULL;
    content.views = (char)views;
    content.array = (char)array;
    content.handle = lease_handle(lease);
    if (!content.handle) return PyErr_Format(PyExc_TypeError, "not a lease of a range, or released");
    PyObject *made = entry_make(content);
    if (made) lease_own(lease, false);
    return made;
}

static void entry_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    /* Mostly it was freed before (books.py); not where an interrupt came between. */
    vrange_free(((cache_entry *)object)->handle);
    Py_DECREF(((cache_entry *)object)->decode);
    PyObject_Free(object);
    Py_DECREF(type);
}

int entry_add_type(PyObject *module) {
    static PyMemberDef members[] = {
        {"handle", T_ULONGLONG, offsetof(cache_entry, handle), READONLY, "The range."},
        {"nbytes", T_PYSSIZET, offsetof(cache_entry, nbytes), READONLY, "Its bytes that are in use."},
        {"decode", T_OBJECT, offsetof(cache_entry, decode), READONLY, "Makes the value of a lease."},
        {"views", T_BOOL, offsetof(cache_entry, views), READONLY,
         "Whether the value refers to the range."},
        {"array", T_BOOL, offsetof(cache_entry, array), READONLY, "Whether it is one, over the range."},
        {"expires", T_DOUBLE, offsetof(cache_entry, expires), READONLY, "By time.monotonic."},
        {"copies", T_PYSSIZET, offsetof(cache_entry, copies), READONLY,
         "Bytes that decoding allocates, roughly."},
        {"weight", T_PYSSIZET, offsetof(cache_entry, weight), 0,
         "Bytes of the value; -1: not known yet."},
        {0}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, "Entry(lease, nbytes, decode, views, array, expires, copies=0)\n\n"
                    "A value with a range of its own, which goes with it."},
        {Py_tp_new, entry_new},
        {Py_tp_dealloc, entry_dealloc},
        {Py_tp_members, members},
        {0, NULL}};
    /* Not collected: what decodes refers to types and shapes, never to a cache. */
    static PyType_Spec spec = {.name = "vrange._hit.Entry",
                               .basicsize = sizeof(cache_entry),
                               .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
                               .slots = slots};
    entry_type = add_type(module, &spec);
    return entry_type ? 0 : -1;
}
