/* A value of a shared cache as bytes: a head, places of buffers, the key's form, the body, the buffers. blob.py
 * writes and reads all of it; here are the parts that a read needs. */
#ifndef VRANGE_CACHE_BLOB_H
#define VRANGE_CACHE_BLOB_H

#include <stdint.h>

#include "vrange.h"

/* The head. Another process may have written anything there. */
typedef struct __attribute__((packed)) {
    uint64_t stamp; /* of the record */
    unsigned char digest[VRANGE_DIGEST_BYTES];
    uint32_t form_bytes;
    uint64_t body_bytes;
    uint32_t buffers;
    uint32_t how; /* BLOB_PICKLE, BLOB_BYTES or BLOB_TEXT */
} blob_head;

#define BLOB_HEAD_FORMAT "=Q16sIQII" /* the same for Python's module struct */
_Static_assert(sizeof(blob_head) == 44 && VRANGE_DIGEST_BYTES == 16, "as in the format");

/* How the body is coded. A large value's record says it too, in the first byte of its note. */
enum {
    BLOB_PICKLE,
    BLOB_BYTES,
    BLOB_TEXT,  /* UTF-8, with surrogates */
    BLOB_PARTS, /* only in a note: a pickle with buffers */
};

#endif
