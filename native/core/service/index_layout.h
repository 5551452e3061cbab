/* The shared index, as it lies in a file that the processes of a service map.
 *
 * Nothing in it is trusted: any process of this user can write anything into it. So a number that was read from
 * it is checked before it is used as an index, a record is used only as a copy, and no pointer is in it. What
 * the geometry says is read once, when the file is mapped.
 *
 *     header | members | flights | blocks' owners | buckets | blocks
 *
 * A bucket is one word that counts changes, and WAYS - 1 words that refer to records. A writer publishes a
 * record by one compare-and-swap of such a word. So a writer that is killed or stopped at any instruction
 * leaves no half of a change behind, and holds nothing that others need:
 *
 *     bits  0-23  the record's cell, + 1; 0: the word refers to none
 *     bits 24-35  some bits of the key's digest
 *     bits 36-63  version: another one after each change, and after each invalidation of a key of this bucket
 *
 * Records lie in cells of blocks. A block belongs to one member, which alone writes its cells; the block of a
 * member that is dead goes to the next member that needs one. A cell is free if no word refers to it. So nobody
 * has to free what a dead process left. */
#ifndef VRANGE_INDEX_LAYOUT_H
#define VRANGE_INDEX_LAYOUT_H

#include <stdatomic.h>
#include <stdint.h>

#include "peers/peer.h"
#include "vrange.h"

#define INDEX_MAGIC "vrangeIX"
#define INDEX_VERSION 2u
#define INDEX_PAGE 4096u

#define MEMBERS 1024u
#define FLIGHTS 16384u
#define WAYS ((uint32_t)VRANGE_BUCKET_WORDS)
#define BUCKETS_MOST (1u << 20)
#define CELL_BYTES 64u
#define BLOCK_BYTES ((uint32_t)VRANGE_RECORD_BLOCK_BYTES)
#define BLOCK_CELLS (BLOCK_BYTES / CELL_BYTES)
#define BLOCKS_MOST 65535u /* a word has 24 bits for a cell */
#define CELL_CLASSES 6u

typedef struct {
    char magic[8]; /* of a file whose header is written: the header is one write */
    uint32_t version, page_bytes;
    uint32_t buckets, blocks;
    uint64_t bytes;
} index_header;

/* With the process id while the rest of a member is being written. No process has such an id. */
#define MEMBER_JOINS 0x80000000u

/* A process that uses the index. Its identity is its place and its serial: `serial << 32 | place + 1`. */
typedef struct {
    _Atomic uint64_t word;  /* serial << 32 | process id; process id 0: it left */
    _Atomic uint64_t mends; /* how often its userfaultfd had been replaced when it last published a range */
    peer process;           /* its number of mends is not used: the one above changes */
    uint64_t unused[6];
} index_member;

_Static_assert(sizeof(index_member) == 128, "two cache lines");

/* One computation under way: `digest bits << 24 | serial bits << 10 | place`; 0: none. The serial of the leader
 * has only 14 bits here. So a process that joins at a place first ends the flights of the members before it:
 * later, one of them could be taken for its own. */
typedef struct {
    _Atomic uint64_t word;
    _Atomic uint32_t landings;  /* waiters sleep on it */
    _Atomic uint32_t waits_for; /* the flight that its leader waits for, + 1 */
} index_flight;

typedef struct {
    _Atomic uint64_t owner; /* a member's identity; 0: never used */
    _Atomic uint32_t cell_class;
    uint32_t unused;
} index_block;

/* A record: its cell begins with it, and the payload follows. */
typedef struct {
    unsigned char digest[VRANGE_DIGEST_BYTES];
    uint64_t stamp; /* different for each record that was ever published */
    uint64_t expires_ns;
    uint64_t owner;
    uint32_t bucket;
    uint32_t bytes; /* of the payload */
    uint32_t kind;         /* VRANGE_RECORD_; RANGE: the payload is an index_place */
    uint32_t flight;       /* ERROR: the landing that it belongs to */
    _Atomic uint32_t uses; /* since the owner looked last */
    uint32_t unused;
} index_record;

_Static_assert(sizeof(index_record) == 64, "a cell");

/* Where a large value lies in the memory of the record's owner. */
typedef struct {
    uint64_t bytes;
    vrange_shared_place at;
} index_place;

_Static_assert(sizeof(index_place) == VRANGE_NOTE_AT, "the note follows");

#define FLIGHT_PLACE_BITS 10
#define FLIGHT_SERIAL_BITS 14
#define FLIGHT_KEY_SHIFT (FLIGHT_PLACE_BITS + FLIGHT_SERIAL_BITS)
#define FLIGHT_SERIAL_MASK ((1u << FLIGHT_SERIAL_BITS) - 1)
#define FLIGHT_PLACE_OF(word) ((uint32_t)(word) & ((1u << FLIGHT_PLACE_BITS) - 1))
#define FLIGHT_SERIAL_OF(word) ((uint32_t)((word) >> FLIGHT_PLACE_BITS) & FLIGHT_SERIAL_MASK)

_Static_assert(MEMBERS <= 1u << FLIGHT_PLACE_BITS, "a flight names any place");

#define CELL_OF(word) ((uint32_t)((word) & 0xffffffu)) /* + 1 */
#define TAG_OF(word) ((uint32_t)((word) >> 24) & 0xfffu)
#define VERSION_ONE (1ull << 36)
#define VERSION_BITS (~0ull << 36)

static inline uint64_t word_after(uint64_t word, uint32_t tag, uint32_t cell) {
    return ((word & VERSION_BITS) + VERSION_ONE) | (uint64_t)tag << 24 | cell;
}

#endif
