/* The codec: values to bytes, and back. */
#ifndef VRANGE_CACHE_CODEC_H
#define VRANGE_CACHE_CODEC_H

#include "python/cache/core.h"
#include "python/cache/form.h"

enum {
    CODING_FAILED = -1,
    CODED,
    NOT_KEPT,
};

/* NOT_KEPT: the value can't be coded, and Python's codec has warned. CODING_FAILED with an error set. May run
 * Python. The caller calls coded_release in each case. */
int code_value(cache_core *self, PyObject *value, coded *out);

/* What a caller gets of a value that is not stored: as writable as if it were. Steals the reference; NULL
 * stays NULL; NULL with an error set. May run Python. */
PyObject *core_answer_unstored(const cache_core *self, PyObject *value);

/* NULL with an error set. They may run Python. */
PyObject *decode_small(PyObject *form, const char *data, size_t bytes);
PyObject *decode_range(PyObject *form, bool is_text, PyObject *lease);

/* The same from a copy of the range, a bytes object. */
PyObject *decode_copy(PyObject *form, bool is_text, PyObject *copy);

#endif
