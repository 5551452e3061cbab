/* Places in the table that NumPy exports for extension modules (`_ARRAY_API`). They never change
 * (numpy/_core/code_generators/numpy_api.py), so NumPy's headers are not needed. */
#ifndef VRANGE_NUMPY_TABLE_H
#define VRANGE_NUMPY_TABLE_H

enum {
    NUMPY_ARRAY_TYPE = 2,
    NUMPY_NEW_FROM_DESCR = 94,
    NUMPY_FEATURE_VERSION = 211,
    NUMPY_SET_BASE_OBJECT = 282,
    NUMPY_SET_HANDLER = 304,
    NUMPY_GET_HANDLER = 305,
    NUMPY_DEFAULT_HANDLER = 306,
};

#endif
