/* The bytes of a value as they are stored, and the type Form, in which Python's codec returns them. */
#ifndef VRANGE_CACHE_FORM_H
#define VRANGE_CACHE_FORM_H

#include "python/support.h"

#include <stdbool.h>

#include "python/cache/slabs.h"
#include "vrange.h"

typedef struct {
    PyObject *form;     /* owned: decodes the value, a Viewer or a callable; NULL: natively coded */
    PyObject *holder;   /* owned: keeps the parts alive, or NULL */
    Py_buffer *views;   /* of the holder's parts, `view_count` of them */
    Py_ssize_t view_count;
    vrange_part *parts; /* &one, or allocated */
    size_t part_count;
    vrange_part one;
    size_t bytes;
    PyObject *write;    /* borrowed from the holder: writes the bytes instead; or NULL */
    bool is_small;      /* `small` has the bytes */
    bool refers;        /* the decoded value refers to the range's memory */
    bool is_view;       /* the first answer is decoded, too */
    bool is_private;    /* each caller gets an object of its own */
    bool is_text;       /* a natively coded value with a range of its own is a str, else bytes */
    char small[SMALL_BYTES_MOST];
} coded;

/* Takes over what Python's codec returned. -1 with an error set. */
int coded_by_form(coded *out, PyObject *form);

/* Copies the parts of a small value into `small`. */
void coded_put_together(coded *out);

void coded_release(coded *c);

/* write(lease, at, part, from, most) */
PyObject *form_write(PyObject *module, PyObject *args);

int form_add_type(PyObject *module);

#endif
