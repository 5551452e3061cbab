/* Cells for freed blocks; see heap_cells.h.
 *
 * Copying into a block takes longer than finding it, and longest if it is not in the processor's cache. If each
 * size class had blocks of its own, those of all classes would not fit there where sizes vary: that made a loop
 * take up to three times as long as with one block. So the blocks lie in one row, the last freed first, and a
 * request gets the first one of up to twice its size. What blocks have beyond their requests is lent, and
 * bounded: otherwise a program that frees larger blocks and keeps smaller ones would need twice the memory.
 *
 * The time at which a block came into its cell is not read: reading the clock costs more than the rest of
 * cells_put. Each block that comes gets a number instead, and the thread that drains remembers when it first
 * saw this number in this cell. */
#define _GNU_SOURCE
#include "heap/heap_cells.h"

#include <stdatomic.h>
#include <stddef.h>

#include "base/amounts.h"
#include "os/os.h"

#define DEPTH 8
#define LINES_MOST 256
#define LEAST_BYTES ((size_t)256 << 10) /* of a processor, however little is left */
#define NOT_LENT_SHARE 16               /* of a request: more than that is lent */
/* Of what the cells of a processor may hold, this share (1/2) may be lent there. It has to do for the threads
 * that were interrupted while each used a block, too: with an eighth, 16 threads on 2 processors took from the
 * zone what no cache held any more. */
#define LENT_SHARE 2

/* A loan: the units, and the processor above them. */
#define LOAN_UNITS_BITS 8
_Static_assert(LINES_MOST <= 1u << (16 - LOAN_UNITS_BITS), "a loan has room for the processor");

/* A cell: the first unit, the number of units, and the number of its coming. 0: empty. */
#define UNITS_BITS LOAN_UNITS_BITS
#define UNITS_MOST ((1u << UNITS_BITS) - 1)
#define COMING_BITS 24
_Static_assert(UNITS_BITS + COMING_BITS == 32, "and for the first unit");

/* The content of a line: its units, and its blocks above them. */
#define UNITS_MASK (((uint64_t)1 << 24) - 1)
#define ONE_BLOCK ((uint64_t)1 << 40)

typedef struct {
    _Atomic uint64_t cells[DEPTH];
    _Atomic uint64_t content; /* two counts in one word, so that one instruction changes both */
    _Atomic uint32_t comings, lent_units;
    struct {
        uint64_t word, since_ns;
    } seen[DEPTH]; /* for the thread that drains */
    char apart[64];         /* from the words of the next processor */
} line;

static struct {
    line *_Atomic lines;
    uint32_t count;
    uint32_t block_most; /* units of a block */
    uint64_t units_most;
    _Atomic uint64_t units_now; /* what the cells of a processor may hold */
} all;

void cells_open(uint64_t units_most) {
    const unsigned processors = os_processors();
    all.count = processors < LINES_MOST ? processors : LINES_MOST;
    all.units_most = units_most < UNITS_MASK ? units_most : UNITS_MASK / 2;
    all.block_most = (uint32_t)lesser(CELL_BYTES_MOST / os_page_bytes(), UNITS_MOST);
    atomic_store(&all.units_now, all.units_most);
    line *lines = os_map(all.count * sizeof *lines);
    if (lines) os_leave_out_of_dumps(lines, all.count * sizeof *lines);
    atomic_store_explicit(&all.lines, lines, memory_order_release);
}

void cells_bound(uint64_t units) {
    /* The caretaker of a cache runs before the heap is opened: what another thread just writes is not read. */
    if (!atomic_load_explicit(&all.lines, memory_order_acquire)) return;
    const uint64_t each = units / all.count, least = LEAST_BYTES / os_page_bytes();
    atomic_store(&all.units_now, lesser(each > least ? each : least, all.units_most));
}

static line *line_here(void) {
    line *lines = atomic_load_explicit(&all.lines, memory_order_acquire);
    return lines ? &lines[os_processor() % all.count] : NULL;
}

static cell_block block_of(uint64_t word) {
    return (cell_block){(uint32_t)(word >> 32), (uint32_t)word & UNITS_MOST};
}

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

/* Returns whether a block may serve this request. What it has beyond a sixteenth more is lent. */
static bool may_serve(line *here, cell_block block, uint32_t units, cell_loan *loan) {
    const uint32_t more = block.units - units;
    *loan = 0;
    if (block.units < units || more > units) return false;
    if (more <= units / NOT_LENT_SHARE) return true;
    const uint64_t lent_most = atomic_load_explicit(&all.units_now, memory_order_relaxed) / LENT_SHARE;
    if (atomic_load_explicit(&here->lent_units, memory_order_relaxed) + more > lent_most) return false;
    *loan = (cell_loan)((uint32_t)(here - atomic_load(&all.lines)) << LOAN_UNITS_BITS | more);
    return true;
}

void cells_repay(cell_loan loan) {
    line *lines = atomic_load_explicit(&all.lines, memory_order_acquire);
    atomic_fetch_sub_explicit(&lines[loan >> LOAN_UNITS_BITS].lent_units, loan & UNITS_MOST,
                              memory_order_relaxed);
}

cell_block cells_take(uint32_t units, cell_loan *loan) {
    *loan = 0;
    line *here = units <= all.block_most ? line_here() : NULL;
    if (!here || !content_of(here)) return (cell_block){0};
    for (int i = 0; i < DEPTH; i++) {
        uint64_t word = atomic_load_explicit(&here->cells[i], memory_order_relaxed);
        const cell_block block = block_of(word);
        if (!word || !may_serve(here, block, units, loan)) continue;
        if (!atomic_compare_exchange_strong(&here->cells[i], &word, 0)) continue;
        count_out(here, block);
        if (*loan) atomic_fetch_add_explicit(&here->lent_units, *loan & UNITS_MOST, memory_order_relaxed);
        return block;
    }
    *loan = 0;
    return (cell_block){0};
}

/* Puts it first. Those before the first empty cell move on by one; the last one comes out if none is empty. */
cell_block cells_put(cell_block block) {
    line *here = block.units <= all.block_most ? line_here() : NULL;
    if (!here || !has_room(content_of(here), block)) return block;
    count_in(here, block);
    uint64_t word = word_of(here, block);
    for (int i = 0; i < DEPTH && word; i++) word = atomic_exchange(&here->cells[i], word);
    if (word) count_out(here, block_of(word));
    return block_of(word);
}

cell_block cells_drain(uint32_t *at, uint64_t now_ns, uint64_t before_ns) {
    line *lines = atomic_load_explicit(&all.lines, memory_order_acquire);
    while (lines && *at < all.count * DEPTH) {
        line *here = &lines[*at / DEPTH];
        if (*at % DEPTH == 0 && !content_of(here)) {
            *at += DEPTH;
            continue;
        }
        const uint32_t i = *at % DEPTH;
        ++*at;
        uint64_t word = atomic_load_explicit(&here->cells[i], memory_order_relaxed);
        if (!word) continue;
        if (here->seen[i].word != word) {
            here->seen[i].word = word;
            here->seen[i].since_ns = now_ns;
        }
        if (here->seen[i].since_ns > before_ns) continue;
        if (!atomic_compare_exchange_strong(&here->cells[i], &word, 0)) continue;
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
        for (uint32_t at = 0; at < DEPTH; at++) {
            const uint64_t word = atomic_load(&here->cells[at]);
            if (word) content += weight_of(block_of(word));
        }
        atomic_store(&here->content, content);
    }
}
