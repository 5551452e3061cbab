/* Cells; see record_cells.h.
 *
 * A process looks for a free cell in its own blocks with a hand for each class of size, as in GCLOCK (Smith
 * 1978). If the next few cells are in use, it takes another block: one that was never used, or one of a dead
 * member, whose records stay. If there is none, it evicts the record at the hand, unless that was used
 * since. */
#include "service/record_cells.h"

#include <string.h>

#include "os/os.h"
#include "service/members.h"

#define LOOKED_AT 64u

static const uint32_t class_cells[CELL_CLASSES] = {2, 4, 8, 16, 32, 85};

static uint32_t cells_in_block(uint32_t cell_class) { return BLOCK_CELLS / class_cells[cell_class]; }

static uint32_t *numbers_of(vrange_shared *s, uint32_t cell_class) {
    return s->own->numbers + (size_t)cell_class * s->block_count;
}

bool cell_may_be_read(const vrange_shared *s, uint32_t cell, size_t bytes) {
    const uint32_t block = cell / BLOCK_CELLS;
    if (block >= s->block_count || bytes > BLOCK_BYTES) return false;
    /* A block that was never used has no memory behind it, and none may be left. */
    return (size_t)(cell % BLOCK_CELLS) * CELL_BYTES + bytes <= BLOCK_BYTES &&
           atomic_load_explicit(&s->blocks[block].owner, memory_order_relaxed) != 0;
}

bool cell_is_referred_to(const vrange_shared *s, uint32_t cell, uint64_t *at, uint64_t *word) {
    const uint32_t bucket = record_at(s, cell)->bucket & s->bucket_mask;
    for (uint32_t way = 1; way < WAYS; way++) {
        *at = (uint64_t)bucket * WAYS + way;
        *word = atomic_load(&s->words[*at]);
        if (CELL_OF(*word) == cell + 1) return true;
    }
    return false;
}

/* ---- blocks ------------------------------------------------------------------------------------ */

static bool may_take(const vrange_shared *s, uint64_t owner) {
    return owner == 0 || (owner != own_identity(s) && member_look(s, owner) == MEMBER_GONE);
}

/* From the owner that was looked at, and from no other: another process may have taken it meanwhile, and lives.
 * A block that was never used gets its memory first: touching it may otherwise raise SIGBUS. */
static bool take_block(vrange_shared *s, uint32_t number, uint64_t owner, uint32_t cell_class) {
    index_block *block = &s->blocks[number];
    char *memory = s->cells + (size_t)number * BLOCK_BYTES;
    if (owner == 0) {
        if (os_populate(memory, BLOCK_BYTES) != 0) return false;
        if (!atomic_compare_exchange_strong(&block->owner, &owner, own_identity(s))) return false;
        atomic_store(&block->cell_class, cell_class);
        return true;
    }
    return atomic_compare_exchange_strong(&block->owner, &owner, own_identity(s));
}

static void own_block(vrange_shared *s, uint32_t number, uint32_t cell_class) {
    /* More only if the owners in a corrupt index change by themselves. */
    if (s->own->owned[cell_class] < s->block_count)
        numbers_of(s, cell_class)[s->own->owned[cell_class]++] = number;
}

/* Whether there is one more block of this class. Dead members' blocks of other classes are taken along, as they
 * are found. */
static bool claim_block(vrange_shared *s, uint32_t cell_class) {
    uint64_t dead = 0, alive = 0; /* the owners that were looked at last: neighbours often have the same */
    for (uint32_t i = 0; i < s->block_count; i++) {
        const uint32_t number = s->own->claim++ % s->block_count;
        const uint64_t owner = atomic_load(&s->blocks[number].owner);
        if (owner && owner == alive) continue;
        if (owner && owner != dead && !may_take(s, owner)) {
            alive = owner;
            continue;
        }
        dead = owner;
        if (!take_block(s, number, owner, cell_class)) {
            if (owner == 0) return false; /* no memory */
            continue;
        }
        const uint32_t its_class = atomic_load(&s->blocks[number].cell_class);
        if (its_class >= CELL_CLASSES) atomic_store(&s->blocks[number].cell_class, cell_class);
        own_block(s, number, its_class >= CELL_CLASSES ? cell_class : its_class);
        if (its_class == cell_class || its_class >= CELL_CLASSES) return true;
    }
    return false;
}

/* ---- cells ------------------------------------------------------------------------------------- */

/* The cell at the hand, which moves on. */
static uint32_t next_cell(vrange_shared *s, uint32_t cell_class) {
    const uint32_t in_block = cells_in_block(cell_class), all = s->own->owned[cell_class] * in_block;
    const uint32_t hand = s->own->hand[cell_class]++ % all;
    const uint32_t block = numbers_of(s, cell_class)[hand / in_block];
    return block * BLOCK_CELLS + hand % in_block * class_cells[cell_class];
}

static uint32_t find_free(vrange_shared *s, uint32_t cell_class, uint32_t most, bool evicts) {
    uint64_t at, word;
    if (!s->own->owned[cell_class]) return 0;
    for (uint32_t i = 0; i < most; i++) {
        const uint32_t cell = next_cell(s, cell_class);
        index_record *record = record_at(s, cell);
        if (!cell_is_referred_to(s, cell, &at, &word)) return cell + 1;
        if (!evicts) continue;
        const uint32_t uses = atomic_load_explicit(&record->uses, memory_order_relaxed);
        atomic_store_explicit(&record->uses, uses / 2, memory_order_relaxed);
        if (uses) continue;
        if (atomic_compare_exchange_strong(&s->words[at], &word, word_after(word, 0, 0))) return cell + 1;
    }
    return 0;
}

uint32_t record_cells_take(vrange_shared *s, uint32_t payload_bytes) {
    uint32_t cell_class = 0;
    const size_t bytes = sizeof(index_record) + payload_bytes;
    while (cell_class < CELL_CLASSES && (size_t)class_cells[cell_class] * CELL_BYTES < bytes) cell_class++;
    if (cell_class == CELL_CLASSES || !own_identity(s)) return 0;
    uint32_t cell = find_free(s, cell_class, LOOKED_AT, false);
    if (cell) return cell;
    const bool has_more = claim_block(s, cell_class);
    const uint32_t all = s->own->owned[cell_class] * cells_in_block(cell_class);
    if (has_more) cell = find_free(s, cell_class, all, false);
    return cell ? cell : find_free(s, cell_class, 8 * all, true);
}
