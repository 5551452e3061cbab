/* A range as the files of the core see it: its descriptor, and the word that holds its state.
 *
 * All state of a range that may change while another thread reads it is in one 64-bit word. So a pin or a
 * release of resident content is one compare-and-swap:
 *
 *     bits  0-2   state      3 partial   4 lost   5 doomed   6 kept   7 away
 *     bits  8-31  pins
 *     bits 32-59  generation: a handle with another one names a range that is gone
 *     bits 60-63  away: the level of the owner (owners.h)
 *
 *          release              offer                 the kernel takes a page
 *  PINNED ---------> RESIDENT ---------> OFFERED ------------------------------> PURGED
 *    ^    <---------  (idle)               |  pin: nothing was lost                 |
 *    |      pin                            |                                        |
 *    +-------------------------------------+     pin: accessible, reports "lost"    |
 *    +------------------------------------------------------------------------------+
 *
 * PINNED is RESIDENT with pins. A BUSY range belongs to the one thread that makes system calls on it; only a
 * range without pins becomes BUSY. "lost" is sticky until vrange_refilled. */
#ifndef VRANGE_RANGE_STATE_H
#define VRANGE_RANGE_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vrange.h"

enum {
    FREE,
    RESIDENT,
    OFFERED,
    PURGED,
    BUSY,
};

#define WORD_STATE 0x7ull
#define WORD_PARTIAL 0x8ull
#define WORD_LOST 0x10ull
#define WORD_DOOMED 0x20ull /* to be freed with its last pin */
#define WORD_KEPT 0x40ull   /* in a child that has not read the word yet: the memory was inherited */
#define WORD_AWAY 0x80ull   /* PURGED here, but an owner that this process was forked from has the content */
#define WORD_PIN (1ull << 8)
#define WORD_PINS (0xffffffull << 8)
#define WORD_GENERATION (0xfffffffull << 32)
#define WORD_LEVEL_SHIFT 60

static inline uint64_t word_state(uint64_t word) { return word & WORD_STATE; }
static inline bool word_is_away(uint64_t word) { return word & WORD_AWAY; }
static inline uint32_t word_level(uint64_t word) { return (uint32_t)(word >> WORD_LEVEL_SHIFT); }
/* In the word and not in the descriptor: a child that reads its table must not copy all of it. */
static inline uint64_t word_away_at(uint32_t level) { return WORD_AWAY | (uint64_t)level << WORD_LEVEL_SHIFT; }
static inline uint64_t word_not_away(uint64_t word) { return word & ~(WORD_AWAY | 0xfull << WORD_LEVEL_SHIFT); }
static inline uint64_t word_pins(uint64_t word) { return (word & WORD_PINS) >> 8; }

typedef struct range {
    struct vrange_arena *_Atomic arena; /* NULL: the descriptor is unused */
    uint32_t index; /* its own place in the table */
    uint32_t first_page; /* in its span */
    _Atomic uint32_t pages; /* ranking reads it at any time, as it reads the cost */
    uint32_t below, above;               /* neighbours in address order, 0: none (arena.c) */
    uint32_t list_previous, list_next;   /* an arena's free list or its list of lost ranges */
    uint8_t span; /* of its arena */
    bool listed;                         /* on the list of lost ranges; under the arena's lock */
    uint8_t inherited_from;              /* the level of that owner */
    _Atomic bool inherited;              /* an owner had the same pages at the fork (owners.h) */
    _Atomic bool shared;                 /* was pinned at a fork: see range_shared.h */
    _Atomic uint32_t uses;               /* fixed point, as of `epoch` (worth.h) */
    _Atomic uint32_t epoch;
    _Atomic float cost_ns;               /* how long recomputing the content would take */
    _Atomic uint64_t released_ns;        /* when it became volatile, or when a pin reported its loss */
    uint64_t *lost_pages;                /* partial: a bit for each page; NULL: all are lost */
    uint32_t missing_pages;              /* partial, offered: how many count as purged */
    _Atomic uint32_t owner;              /* the user's note: vrange_set_owner */
    uint64_t *sentinel_words;            /* sentinel rung: the saved first word of each page */
} range;

#define TABLE_CHUNK 4096u
#define TABLE_CHUNK_SPAN ((size_t)512 << 10) /* a chunk's size and alignment in memory */

#define OWNERS_MOST 8 /* the processes from which one descends, and reads */

/* What a process tells its children of a range, in memory that they share. */
typedef struct {
    _Atomic uint32_t changed; /* the number of the last fork before the content last changed */
    _Atomic uint32_t uses;    /* by children, since the owner counted them */
    _Atomic uint32_t sentinels; /* counts when they begin to be placed, and to be removed */
} range_mark;

/* The words lie together, apart from the descriptors: fork must find the pinned ones among a million. */
typedef struct {
    _Atomic uint64_t words[TABLE_CHUNK];
    range ranges[TABLE_CHUNK];
    range_mark *_Atomic marks;            /* of this process; NULL before its first fork */
    range_mark *owner_marks[OWNERS_MOST]; /* in a child: of the owners, by their level */
} table_chunk;

_Static_assert(OWNERS_MOST < 16, "a level fits the word");
_Static_assert(sizeof(table_chunk) <= TABLE_CHUNK_SPAN, "a chunk does not fit its span");

static inline table_chunk *range_chunk(const range *r) {
    return (table_chunk *)((uintptr_t)r & ~(uintptr_t)(TABLE_CHUNK_SPAN - 1));
}

static inline _Atomic uint64_t *range_word(const range *r) {
    table_chunk *chunk = range_chunk(r);
    return &chunk->words[r - chunk->ranges];
}

static inline uint64_t range_handle(const range *r, uint64_t word) {
    return (word & WORD_GENERATION) | r->index;
}

#endif
