/* The processes that use an index: who they are, and whether they live. */
#ifndef VRANGE_MEMBERS_H
#define VRANGE_MEMBERS_H

#include <stdbool.h>

#include "service/index_file.h"

typedef enum {
    MEMBER_GONE,
    MEMBER_RUNS,
    MEMBER_STOPPED, /* by a signal or a debugger: it may go on at any moment */
} member_state;

/* The identity of this process; 0: it has not joined, or it is the child of one that has. */
static inline uint64_t own_identity(const vrange_shared *s) { return atomic_load(&s->own->identity); }

/* Copies what the index says of a member; false: no such member, or it left. */
bool member_read(const vrange_shared *s, uint64_t identity, index_member *out);

/* Before this process publishes where a range lies. */
void member_note_mends(vrange_shared *s);

member_state member_look(const vrange_shared *s, uint64_t identity);

/* The identity at this place of the table whose serial ends with these bits; 0: none. */
uint64_t member_at(const vrange_shared *s, uint32_t place, uint32_t serial_bits, uint32_t mask);

#endif
