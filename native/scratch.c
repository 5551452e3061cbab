/* Buffers for putting content together before it is mapped.
 *
 * UFFDIO_COPY makes a page appear with its content in place, so that no other thread ever sees it half
 * filled; the content has to be put together elsewhere first. A signal handler can't allocate, so the
 * buffers are reserved ahead. Taking one is a single exchange. There are more of them than threads
 * that can be in a handler at once on most machines, and a regenerator that touches another array
 * takes a second one. Nobody ever waits for one: who has it may be waiting for us, as for the GIL. When
 * all are in use, one more is mapped, which is a system call and no more. */
#include "scratch.h"

#include <errno.h>
#include <stdatomic.h>

#include "os.h"

#define SLOTS 64
#define SLOTS_KEPT 4 /* what the others hold is the kernel's when it needs it */

static char *_Atomic memory;
static _Atomic unsigned char in_use[SLOTS];

int scratch_prepare(void) {
    if (atomic_load(&memory)) return 0;
    char *fresh = os_map((size_t)SLOTS * SCRATCH_BYTES);
    if (!fresh) return -ENOMEM;
    char *expected = NULL;
    if (!atomic_compare_exchange_strong(&memory, &expected, fresh))
        os_unreserve(fresh, (size_t)SLOTS * SCRATCH_BYTES);
    return 0;
}

char *scratch_take(void) {
    char *slots = atomic_load(&memory);
    for (unsigned slot = 0; slots && slot < SLOTS; slot++) {
        if (!atomic_load_explicit(&in_use[slot], memory_order_relaxed) &&
            !atomic_exchange(&in_use[slot], 1))
            return slots + (size_t)slot * SCRATCH_BYTES;
    }
    char *more;
    while (!(more = os_map(SCRATCH_BYTES))) os_yield();
    return more;
}

void scratch_give(char *scratch) {
    size_t slot = (size_t)(scratch - atomic_load(&memory)) / SCRATCH_BYTES;
    if (slot >= SLOTS) {
        os_unreserve(scratch, SCRATCH_BYTES);
        return;
    }
    if (slot >= SLOTS_KEPT) os_lazyfree(scratch, SCRATCH_BYTES);
    atomic_store(&in_use[slot], 0);
}

void scratch_forget_owners(void) {
    for (unsigned slot = 0; slot < SLOTS; slot++) atomic_store(&in_use[slot], 0);
}
