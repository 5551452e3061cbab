/* Buckets: from a key's digest to its record. */
#ifndef VRANGE_BUCKETS_H
#define VRANGE_BUCKETS_H

#include <stdbool.h>

#include "service/index_file.h"

/* A record as it was published, with the place of the word that referred to it and that word. */
typedef struct {
    index_record record;
    uint64_t at, word;
} found_record;

/* Copies a key's record that has not expired, and up to `room` bytes of its payload. */
bool buckets_find(const vrange_shared *s, const unsigned char *digest, found_record *out, void *payload,
                  size_t room);

/* Copies the record to which the word number `at` refers. */
bool buckets_read(const vrange_shared *s, uint64_t at, found_record *out, void *payload, size_t room);

/* Whether the word is still the one that was found. */
bool buckets_is_still(const vrange_shared *s, uint64_t at, uint64_t word);

/* Makes a word refer to the cell, unless the bucket changed. 0; -ESTALE if it changed. */
int buckets_publish(vrange_shared *s, const unsigned char *digest, uint64_t changes, uint32_t cell,
                    uint64_t *at, uint64_t *word);

/* Invalidates the key, except for the record that was just published there, whose word becomes *word. -ESTALE
 * if that record was replaced meanwhile: then the key has no record. */
int buckets_settle(vrange_shared *s, const unsigned char *digest, uint64_t at, uint64_t *word);

uint32_t bucket_of(const vrange_shared *s, const unsigned char *digest);

#endif
