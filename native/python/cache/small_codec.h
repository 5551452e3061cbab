/* The native code of small values: str, bytes, int, float, bool, None and tuples of these. */
#ifndef VRANGE_CACHE_SMALL_CODEC_H
#define VRANGE_CACHE_SMALL_CODEC_H

#include "python/support.h"

/* Writes a value into at most `room` bytes, which are less than 64 KiB. Returns its bytes; 0: it is too large
 * or of another type; -1 with an error set. */
Py_ssize_t small_write(PyObject *value, char *to, size_t room);

/* Reads what small_write wrote. NULL with an error set. */
PyObject *small_read(const char *data);

#endif
