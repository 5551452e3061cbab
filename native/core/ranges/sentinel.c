/* Places sentinels in a range's pages, checks and removes them; see sentinel.h. */
#include "ranges/sentinel.h"

#include <stdlib.h>

#include "os/os.h"
#include "ranges/range_marks.h"
#include "ranges/range_table.h"

static _Atomic uint64_t *first_word(range *r, uint32_t page) {
    return (_Atomic uint64_t *)(void *)(range_address(r) + (size_t)page * os_page_bytes());
}

bool sentinel_place(range *r) {
    if (!r->sentinel_words) r->sentinel_words = malloc(r->pages * sizeof *r->sentinel_words);
    if (!r->sentinel_words) return false;
    range_sentinels_change(r);
    for (uint32_t page = 0; page < r->pages; page++)
        r->sentinel_words[page] = atomic_exchange(first_word(r, page), SENTINEL);
    return true;
}

bool sentinel_secures(range *r, uint32_t page) {
    uint64_t expected = SENTINEL;
    return atomic_compare_exchange_strong(first_word(r, page), &expected, SENTINEL);
}

void sentinel_remove(range *r) {
    range_sentinels_change(r); /* before, and not only before the words are freed */
    for (uint32_t page = 0; page < r->pages; page++) {
        uint64_t expected = SENTINEL;
        atomic_compare_exchange_strong(first_word(r, page), &expected, r->sentinel_words[page]);
    }
    sentinel_forget(r);
}

void sentinel_forget(range *r) {
    if (!r->sentinel_words) return;
    range_sentinels_change(r);
    free(r->sentinel_words);
    r->sentinel_words = NULL;
}
