/* Loss: finds that the kernel took pages of a range, and reports it until they are refilled.
 *
 * On the refault rung one system call secures the pages, and fails if one is missing. On the sentinel rung
 * an exchange of words secures them (sentinel.h). A loss is recorded for the whole range, or page by page if
 * the range is partial. "lost" is sticky until vrange_refilled. */
#include "ranges/range_loss.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "ranges/arena.h"
#include "ranges/arena_lost.h"
#include "ranges/range_fill.h"
#include "base/gate.h"
#include "os/os.h"
#include "ranges/range_busy.h"
#include "ranges/range_marks.h"
#include "base/rung.h"
#include "ranges/sentinel.h"
#include "counters/stats.h"

#define EMPTIED_AT_ONCE ((size_t)4 << 20) /* bytes: about a millisecond */

/* Records that the page is lost. Returns false if there is no memory for the record. */
static bool mark_lost_page(range *r, uint64_t word, uint32_t page) {
    if (word & WORD_LOST && !r->lost_pages) return true; /* the whole range is lost already */
    if (!r->lost_pages) r->lost_pages = calloc((r->pages + 63) / 64, sizeof *r->lost_pages);
    if (!r->lost_pages) return false;
    r->lost_pages[page / 64] |= 1ull << page % 64;
    return true;
}

bool range_secure_page_by_page(range *r, uint64_t word, uint64_t *lost_bytes) {
    const size_t page_bytes = os_page_bytes();
    bool kept = true;
    *lost_bytes = 0;
    range_changes(r);
    for (uint32_t page = 0; page < r->pages && kept; page++) {
        char *address = range_address(r) + (size_t)page * page_bytes;
        bool is_there = r->sentinel_words ? sentinel_secures(r, page)
                                          : os_populate(address, page_bytes) == 0;
        if (is_there) continue;
        *lost_bytes += page_bytes;
        kept = mark_lost_page(r, word, page) &&
               (r->sentinel_words || fill_zero(address, page_bytes) == 0);
    }
    if (r->sentinel_words) sentinel_remove(r);
    else if (!rung_holds()) kept = false; /* the pages that seemed present may be zeros */
    if (!kept) *lost_bytes = range_bytes(r);
    return kept;
}

int range_secure(range *r) {
    if (!r->sentinel_words) {
        int result = os_populate(range_address(r), range_bytes(r));
        if (result == -EFAULT || result == -EHWPOISON) return VRANGE_PURGED;
        /* Check the rung afterwards: success means that no page is lost only if the userfaultfd was still
         * ours, so that a lost page would have failed. */
        return result == 0 && !rung_holds() ? VRANGE_PURGED : result;
    }
    for (uint32_t page = 0; page < r->pages; page++) {
        if (!sentinel_secures(r, page)) return VRANGE_PURGED;
    }
    sentinel_remove(r);
    return VRANGE_OK;
}

static void empty_some(char *address, size_t bytes) {
    const int result = os_discard(address, bytes);
    if (result == 0) return;
    /* A sandbox refuses madvise, at least to this thread. So map fresh memory over the pages, but not on the
     * refault rung: there the new mapping would have to be registered too. vrange leaves that rung when this
     * thread next pins an offered range. */
    if (result != -EINVAL && vrange_rung() != VRANGE_RUNG_REFAULT && os_map_over(address, bytes) == 0)
        return;
    /* Linux before 5.18 does not discard locked memory (mlockall), so it is overwritten. Missing pages must be
     * filled before they can be touched. */
    fill_zero(address, bytes);
    memset(address, 0, bytes);
}

/* The kernel holds its lock of the address space during a call. A thread that maps memory waits for it, and
 * page faults wait for that thread. So no call is long. */
void pages_empty(char *address, size_t bytes) {
    for (; bytes > EMPTIED_AT_ONCE; address += EMPTIED_AT_ONCE, bytes -= EMPTIED_AT_ONCE)
        empty_some(address, EMPTIED_AT_ONCE);
    empty_some(address, bytes);
}

void range_empty(range *r) { pages_empty(range_address(r), range_bytes(r)); }

static void forget_content(range *r, uint64_t word) {
    sentinel_forget(r);
    range_forget_lost_pages(r);
    put_state(r, word | WORD_LOST, PURGED);
}

void range_discard_rest(range *r, uint64_t word) {
    range_changes(r);
    /* First: in between the range must not look pinned. */
    tally(&r->arena->account->purged_bytes, range_bytes(r));
    range_empty(r);
    forget_content(r, word);
}

/* Listed while it is BUSY: once it is PURGED, another thread may free it, and then the list would get free
 * space, or the range that is there next. */
void range_lose(range *r, uint64_t word) {
    range_changes(r);
    tally(&r->arena->account->purged_bytes, range_bytes(r));
    range_empty(r);
    arena_list_lost(r);
    forget_content(r, word);
}

void range_lose_empty(range *r, uint64_t word) {
    range_changes(r);
    tally(&r->arena->account->purged_bytes, range_bytes(r));
    arena_list_lost(r);
    forget_content(r, word);
}

size_t range_resident_bytes(range *r) {
    char *address = range_address(r);
    return os_count_resident(address, address + range_bytes(r));
}

void range_count_offer_over(range *r) {
    const uint64_t missing = (uint64_t)r->missing_pages * os_page_bytes();
    stats_offered(r->arena->account, -(int64_t)(range_bytes(r) - missing));
    if (missing) untally(&r->arena->account->purged_bytes, missing);
    r->missing_pages = 0;
}
