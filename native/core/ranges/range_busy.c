/* Takes a range BUSY. A thread that finds a range BUSY waits: the holder is in a system call. */
#include "ranges/range_busy.h"

#include <errno.h>

#include "base/gate.h"
#include "os/os.h"

#define YIELDS_BEFORE_SLEEP 64

void wait_a_little(unsigned *waited) {
    if (gate_is_wiped()) gate_wait(); /* the holder exists only in the parent */
    if (++*waited < YIELDS_BEFORE_SLEEP) os_yield();
    else os_sleep_ns(50000); /* a busy thread may have taken the holder's processor */
}

int try_busy(range *r, uint64_t generation, uint64_t *word) {
    *word = atomic_load(range_word(r));
    for (;;) {
        if (!is_current(*word, generation)) return VRANGE_GONE;
        if (word_state(*word) == BUSY) return -EBUSY;
        if (word_pins(*word)) return VRANGE_HELD;
        if (atomic_compare_exchange_weak(range_word(r), word, (*word & ~WORD_STATE) | BUSY))
            return VRANGE_OK;
    }
}

int take_busy(range *r, uint64_t generation, uint64_t *word) {
    unsigned waited = 0;
    for (;;) {
        const int result = try_busy(r, generation, word);
        if (result != -EBUSY) return result;
        wait_a_little(&waited);
    }
}
