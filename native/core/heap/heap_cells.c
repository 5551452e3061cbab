/* Cells for freed blocks; see heap_cells.h.
 *
 * Large blocks are kept by the size classes of size_class.h, so a block that is taken is at most two sixteenths
 * larger than what was asked for.
 *
 * Copying into a small block takes longer than finding it, and longest if it is not in the processor's cache.
 * If each class had blocks of its own, those of all classes would not fit there where sizes vary: that made a
 * loop with sizes from 256 KiB to 1 MiB take half as long again as with one block. So small blocks lie in one
 * row, the last freed first, and a request gets the first one of up to twice its size. What blocks have beyond
 * their requests is lent, and bounded: otherwise a program that frees larger blocks and keeps smaller ones
 * would need twice the memory.
 *
 * The time at which a block came into its cell is not read: reading the clock costs more than the rest of
 * cells_put. Each block that comes gets a number instead, and the thread that drains remembers when it first
 * saw this number in this cell. */
#define _GNU_SOURCE
#include "heap/heap_cells.h"

#include <stdatomic.h>
#include <stddef.h>

#include "base/amounts.h"
#include "base/size_class.h"
#include "os/os.h"

#define CLASSES (8 * SECOND_LEVELS) /* up to CELL_UNITS_MOST */
#define DEPTH 4
#define LINES_MOST 256
#define CLASSES_TRIED 2
#define SMALL_BYTES ((size_t)1 << 20)
#define LEAST_BYTES ((size_t)256 << 10) /* of a processor, however little is left */
#define SMALL_DEPTH (2 * DEPTH) /* the first two classes have no blocks of their own */
/* Of what the cells of a processor may hold: as much may be lent there. */
#define LENT_SHARE 32

/* A loan: the units, and the processor above them. */
#define LOAN_UNITS_BITS 8
#define LOAN_UNITS_MOST ((1u << LOAN_UNITS_BITS) - 1)
_Static_assert(LINES_MOST <= 1u << (16 - LOAN_UNITS_BITS), "a loan has room for the processor");

/* A cell: the first unit, the number of units, and the number of its coming. 0: empty. */
#define UNITS_BITS 11
#define COMING_BITS 21
_Static_assert(CELL_UNITS_MOST < 1u << UNITS_BITS, "a cell has room for the units");
_Static_assert(UNITS_BITS + COMING_BITS == 32, "and for the first unit");

/* The content of a line: its units, and its blocks above them. */
#define UNITS_MASK (((uint64_t)1 << 24) - 1)
#define ONE_BLOCK ((uint64_t)1 << 40)

typedef struct {
    _Atomic uint64_t cells[CLASSES][DEPTH];
    _Atomic uint64_t content; /* two counts in one word, so that one instruction changes both */
    _Atomic uint32_t comings, lent_units;
    struct {
        uint64_t word, since_ns;
    } seen[CLASSES][DEPTH]; /* for the thread that drains */
    char apart[64];         /* from the words of the next processor */
} line;

static struct {
    line *_Atomic lines;
    uint32_t count;
    uint64_t units_most, small_units, lent_most;
    _Atomic uint64_t units_now; /* what the cells of a processor may hold */
} all;

void cells_open(uint64_t units_most) {
    const unsigned processors = os_processors();
    all.count = processors < LINES_MOST ? processors : LINES_MOST;
    all.units_most = units_most < UNITS_MASK ? units_most : UNITS_MASK / 2;
    all.small_units = lesser(SMALL_BYTES / os_page_bytes(), LOAN_UNITS_MOST + 1);
    all.lent_most = all.units_most / LENT_SHARE;
    atomic_store(&all.units_now, all.units_most);
    line *lines = os_map(all.count * sizeof *lines);
    if (lines) os_leave_out_of_dumps(lines, all.count * sizeof *lines);
    atomic_store_explicit(&all.lines, lines, memory_order_release);
}

void cells_bound(uint64_t units) {
    const uint64_t each = all.count ? units / all.count : 0, least = LEAST_BYTES / os_page_bytes();
    atomic_store(&all.units_now, lesser(each > least ? each : least, all.units_most));
}

static line *line_here(void) {
    line *lines = atomic_load_explicit(&all.lines, memory_order_acquire);
    return lines ? &lines[os_processor() % all.count] : NULL;
}

static uint32_t place_of(uint32_t units) {
    const size_class c = class_of(units);
    return c.first * SECOND_LEVELS + c.second;
}

static cell_block block_of(uint64_t word) {
    return (cell_block){(uint32_t)(word >> 32), (uint32_t)word & CELL_UNITS_MOST};
}

static bool is_small(uint32_t units) { return units < all.small_units; }

static uint64_t weight_of(cell_block block) { return ONE_BLOCK | block.units; }

static uint64_t content_of(line *here) { return atomic_load_explicit(&here->content, memory_order_relaxed); }

static bool has_room(uint64_t content, cell_block block) {
    return (content & UNITS_MASK) + block.units <= atomic_load_explicit(&all.units_now, memory_order_relaxed);
}

/* Counted first: the count never falls below what is there. */
static void count_in(line *here, cell_block block) {
    atomic_fetch_add_explicit(&here->content, weight_of(block), memory_order_relaxed);
}

static void count_out(line *here, cell_block block) {
    atomic_fetch_sub_explicit(&here->content, weight_of(block), memory_order_relaxed);
}

static uint64_t word_of(line *here, cell_block block) {
    /* Not counted exactly: two blocks of one number in one cell would only be drained earlier. */
    const uint32_t coming = atomic_load_explicit(&here->comings, memory_order_relaxed) + 1;
    atomic_store_explicit(&here->comings, coming, memory_order_relaxed);
    return (uint64_t)block.first << 32 | (uint32_t)(coming << UNITS_BITS) | block.units;
}

/* ---- small blocks ------------------------------------------------------------------------------ */

/* Returns whether a block may serve this request. What it has beyond a sixteenth more is lent. */
static bool may_serve(line *here, cell_block block, uint32_t units, cell_loan *loan) {
    const uint32_t more = block.units - units;
    *loan = 0;
    if (block.units < units || more > units) return false;
    if (more <= units / SECOND_LEVELS) return true;
    if (atomic_load_explicit(&here->lent_units, memory_order_relaxed) + more > all.lent_most) return false;
    *loan = (cell_loan)((uint32_t)(here - atomic_load(&all.lines)) << LOAN_UNITS_BITS | more);
    return true;
}

void cells_repay(cell_loan loan) {
    line *lines = atomic_load_explicit(&all.lines, memory_order_acquire);
    atomic_fetch_sub_explicit(&lines[loan >> LOAN_UNITS_BITS].lent_units, loan & LOAN_UNITS_MOST,
                              memory_order_relaxed);
}

static cell_block take_small(line *here, uint32_t units, cell_loan *loan) {
    _Atomic uint64_t *row = here->cells[0];
    for (int i = 0; i < SMALL_DEPTH; i++) {
        uint64_t word = atomic_load_explicit(&row[i], memory_order_relaxed);
        const cell_block block = block_of(word);
        if (!word || !may_serve(here, block, units, loan)) continue;
        if (!atomic_compare_exchange_strong(&row[i], &word, 0)) continue;
        count_out(here, block);
        if (*loan) atomic_fetch_add_explicit(&here->lent_units, *loan & LOAN_UNITS_MOST, memory_order_relaxed);
        return block;
    }
    *loan = 0;
    return (cell_block){0};
}

/* Puts it first. Those before the first empty cell move on by one; returns the last one if none is empty. */
static cell_block put_small(line *here, cell_block block) {
    _Atomic uint64_t *row = here->cells[0];
    count_in(here, block);
    uint64_t word = word_of(here, block);
    for (int i = 0; i < SMALL_DEPTH && word; i++) word = atomic_exchange(&row[i], word);
    if (word) count_out(here, block_of(word));
    return block_of(word);
}

/* ---- all blocks -------------------------------------------------------------------------------- */

static cell_block take_large(line *here, uint32_t units) {
    const uint32_t place = place_of(units), end = place + CLASSES_TRIED;
    for (uint32_t at = place; at < end && at < CLASSES; at++) {
        for (int i = 0; i < DEPTH; i++) {
            _Atomic uint64_t *cell = &here->cells[at][i];
            uint64_t word = atomic_load_explicit(cell, memory_order_relaxed);
            const cell_block block = block_of(word);
            if (!word || block.units < units) continue;
            if (!atomic_compare_exchange_strong(cell, &word, 0)) continue;
            count_out(here, block);
            return block;
        }
    }
    return (cell_block){0};
}

cell_block cells_take(uint32_t units, cell_loan *loan) {
    *loan = 0;
    line *here = units <= CELL_UNITS_MOST ? line_here() : NULL;
    if (!here || !content_of(here)) return (cell_block){0};
    return is_small(units) ? take_small(here, units, loan) : take_large(here, units);
}

static bool put_large(line *here, cell_block block) {
    const uint32_t place = place_of(block.units);
    for (int i = 0; i < DEPTH; i++) {
        _Atomic uint64_t *cell = &here->cells[place][i];
        uint64_t empty = 0;
        if (atomic_load_explicit(cell, memory_order_relaxed)) continue;
        count_in(here, block);
        if (atomic_compare_exchange_strong(cell, &empty, word_of(here, block))) return true;
        count_out(here, block);
    }
    return false;
}

cell_block cells_put(cell_block block) {
    line *here = block.units <= CELL_UNITS_MOST ? line_here() : NULL;
    if (!here || !has_room(content_of(here), block)) return block;
    if (is_small(block.units)) return put_small(here, block);
    return put_large(here, block) ? (cell_block){0} : block;
}

cell_block cells_drain(uint32_t *at, uint64_t now_ns, uint64_t before_ns) {
    line *lines = atomic_load_explicit(&all.lines, memory_order_acquire);
    const uint32_t a_line = CLASSES * DEPTH;
    while (lines && *at < all.count * a_line) {
        line *here = &lines[*at / a_line];
        if (*at % a_line == 0 && !content_of(here)) {
            *at += a_line;
            continue;
        }
        const uint32_t place = *at % a_line / DEPTH, i = *at % DEPTH;
        ++*at;
        uint64_t word = atomic_load_explicit(&here->cells[place][i], memory_order_relaxed);
        if (!word) continue;
        if (here->seen[place][i].word != word) {
            here->seen[place][i].word = word;
            here->seen[place][i].since_ns = now_ns;
        }
        if (here->seen[place][i].since_ns > before_ns) continue;
        if (!atomic_compare_exchange_strong(&here->cells[place][i], &word, 0)) continue;
        count_out(here, block_of(word));
        return block_of(word);
    }
    return (cell_block){0};
}

cells_content cells_read(void) {
    line *lines = atomic_load_explicit(&all.lines, memory_order_acquire);
    cells_content found = {0};
    for (uint32_t i = 0; lines && i < all.count; i++) {
        found.blocks += content_of(&lines[i]) / ONE_BLOCK;
        found.units += content_of(&lines[i]) & UNITS_MASK;
    }
    return found;
}

void cells_after_fork(void) {
    line *lines = atomic_load(&all.lines);
    for (uint32_t i = 0; lines && i < all.count; i++) {
        line *here = &lines[i];
        if (!atomic_load(&here->comings)) continue; /* never used: leave it without memory */
        uint64_t content = 0;
        for (uint32_t at = 0; at < CLASSES * DEPTH; at++) {
            const uint64_t word = atomic_load(&here->cells[at / DEPTH][at % DEPTH]);
            if (word) content += weight_of(block_of(word));
        }
        atomic_store(&here->content, content);
    }
}
