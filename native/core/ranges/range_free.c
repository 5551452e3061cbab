/* Frees ranges, one or several at a time. A pinned range is freed with its last pin. */
#include "ranges/range_free.h"

#include <errno.h>
#include <stdlib.h>

#include "base/gate.h"
#include "counters/stats.h"
#include "ranges/arena.h"
#include "ranges/range_busy.h"
#include "ranges/range_loss.h"
#include "ranges/range_marks.h"
#include "ranges/range_table.h"
#include "ranges/sentinel.h"

#define FREED_AT_ONCE 64

void range_finish_free(range *r, bool has_pages) {
    range_changes(r);
    if (has_pages) range_empty(r);
    range_forget_lost_pages(r);
    sentinel_forget(r);
    arena_give(r);
}

/* Several ranges that are freed together. The pages of neighbours are discarded with one system call: a call
 * for each range of 4 KiB takes several times as long. */
typedef struct {
    range *taken[FREED_AT_ONCE]; /* BUSY */
    size_t count;
    char *from, *to; /* pages to discard */
} batch;

static void discard_pages(batch *b) {
    if (b->from) pages_empty(b->from, (size_t)(b->to - b->from));
    b->from = b->to = NULL;
}

static void add_pages(batch *b, char *address, size_t bytes) {
    if (b->from && b->to == address) {
        b->to += bytes;
    } else if (b->from && b->from == address + bytes) {
        b->from = address;
    } else {
        discard_pages(b);
        b->from = address;
        b->to = address + bytes;
    }
}

static void finish(batch *b) {
    discard_pages(b);
    while (b->count) range_finish_free(b->taken[--b->count], false);
}

/* Adds a range that is BUSY and was in `state`. */
static void add(batch *b, range *r, uint64_t state) {
    vrange_account *account = r->arena->account;
    const int64_t bytes = (int64_t)range_bytes(r);
    range_changes(r);
    if (state == RESIDENT) stats_idle(account, -bytes);
    if (state == OFFERED) range_count_offer_over(r);
    if (state == PURGED) untally(&account->purged_bytes, (uint64_t)bytes);
    else add_pages(b, range_address(r), range_bytes(r));
    b->taken[b->count++] = r;
    if (b->count == FREED_AT_ONCE) finish(b);
}

/* Frees the range with the batch, or dooms it if it is pinned. Called inside the gate. */
static int free_or_doom(batch *b, range *r, uint64_t generation) {
    for (;;) {
        uint64_t word;
        int result = try_busy(r, generation, &word);
        if (result == -EBUSY) {
            finish(b); /* before waiting */
            result = take_busy(r, generation, &word);
        }
        if (result == VRANGE_OK) {
            add(b, r, word_state(word));
            return VRANGE_OK;
        }
        if (result != VRANGE_HELD) return result;
        if (atomic_compare_exchange_strong(range_word(r), &word, word | WORD_DOOMED)) return VRANGE_OK;
    }
}

static int free_some(const uint64_t *handles, size_t count) {
    batch b = {.count = 0};
    int result = VRANGE_OK;
    gate_enter();
    for (size_t i = 0; i < count; i++) {
        range *r = range_of(handles[i]);
        result = r ? free_or_doom(&b, r, handles[i] & WORD_GENERATION) : VRANGE_GONE;
    }
    finish(&b);
    gate_leave();
    return result;
}

int vrange_free(uint64_t handle) { return free_some(&handle, 1); }

void vrange_free_all(const uint64_t *handles, size_t count) {
    /* A fork need not wait for all of them. */
    for (size_t done = 0; done < count; done += FREED_AT_ONCE)
        free_some(handles + done, count - done < FREED_AT_ONCE ? count - done : FREED_AT_ONCE);
}
