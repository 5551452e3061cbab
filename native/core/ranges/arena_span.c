/* Spans: an arena of a given size has one; the arena of a cache begins with a small one and adds another when
 * it is full.
 *
 * Each new span is as large as all before it together, if the budget of address space is far from used up. So
 * a cache of any size has few spans, and reserves at most about twice what it uses. Spans of one process
 * mostly lie side by side, and the kernel makes one mapping of neighbours that are alike: ten thousand small
 * caches stay far below vm.max_map_count.
 *
 * A span is made accessible in steps, from the bottom up. So under vm.overcommit_memory=2 only memory that
 * was used at least once counts as committed, and a span is two mappings instead of thousands. */
#include "ranges/arena_span.h"

#include "base/amounts.h"
#include "base/rung.h"
#include "os/os.h"

#define FIRST_BYTES ((uint64_t)256 << 10)
#define FIRST_LEAST_BYTES ((uint64_t)64 << 10)
#define FIRSTS_IN_BUDGET 8192
#define SHORT_SHARE 16 /* a step of less than this share of the arena does not pay */

static space_use use_of(const vrange_arena *arena) {
    if (!arena->grows) return SPACE_ASKED;
    return arena->reserved_pages ? SPACE_MORE : SPACE_FIRST;
}

/* Under a limit, thousands of small caches must fit into the budget. */
static uint64_t first_bytes(void) {
    const uint64_t share = space_budget() / FIRSTS_IN_BUDGET;
    return share < FIRST_LEAST_BYTES ? FIRST_LEAST_BYTES : lesser(share, FIRST_BYTES) & ~(uint64_t)0xffff;
}

uint32_t span_next_pages(const vrange_arena *arena, uint32_t pages) {
    const size_t page = os_page_bytes();
    const uint64_t room = lesser(arena->most_pages - arena->reserved_pages, UINT32_MAX);
    const uint64_t most = lesser(room, space_most(use_of(arena)) / page);
    const uint64_t first = first_bytes() / page;
    uint64_t wanted = arena->reserved_pages > first ? arena->reserved_pages : first;
    if (arena->span_count == SPANS_MOST || pages > most) return 0;
    /* At most half of what is left, because other caches grow too. A larger request gets what it needs. */
    wanted = lesser(wanted, arena->reserved_pages ? most / 2 : most);
    if (wanted < arena->reserved_pages / SHORT_SHARE) return 0;
    return (uint32_t)(wanted > pages ? wanted : pages);
}

static uint32_t unused_number(const vrange_arena *arena) {
    uint32_t number = 0;
    while (number < SPANS_MOST && arena->spans[number].pages) number++;
    return number;
}

uint32_t span_open(vrange_arena *arena, uint32_t pages) {
    const size_t bytes = (size_t)pages * os_page_bytes();
    const uint32_t number = unused_number(arena);
    if (number == SPANS_MOST) return NO_SPAN;
    const space_use use = use_of(arena);
    char *base = space_reserve(bytes, 0, use);
    if (!base) return NO_SPAN;
    arena->spans[number] = (arena_span){.base = base, .pages = pages, .use = use};
    arena->span_count++;
    arena->reserved_pages += pages;
    tally(&arena->account->reserved_bytes, bytes);
    return number;
}

void span_close(vrange_arena *arena, uint32_t number) {
    arena_span *span = &arena->spans[number];
    const size_t bytes = (size_t)span->pages * os_page_bytes();
    space_return(span->base, bytes, span->use);
    arena->span_count--;
    arena->reserved_pages -= span->pages;
    untally(&arena->account->reserved_bytes, bytes);
    *span = (arena_span){.base = NULL};
}

void span_shorten(vrange_arena *arena, uint32_t number, uint32_t pages) {
    arena_span *span = &arena->spans[number];
    const size_t bytes = (size_t)(span->pages - pages) * os_page_bytes();
    space_return(span->base + (size_t)pages * os_page_bytes(), bytes, span->use);
    arena->reserved_pages -= span->pages - pages;
    untally(&arena->account->reserved_bytes, bytes);
    span->pages = pages;
    if (span->committed_pages > pages) span->committed_pages = pages;
}

int span_commit(arena_span *span, uint64_t page_after) {
    if (page_after <= span->committed_pages) return 0;
    const size_t page = os_page_bytes();
    const uint64_t step = COMMIT_STEP_BYTES / page;
    uint64_t end = lesser((page_after + step - 1) / step * step, span->pages);
    for (;;) {
        char *from = span->base + (size_t)span->committed_pages * page;
        const size_t bytes = (size_t)(end - span->committed_pages) * page;
        int result = os_commit(from, bytes);
        if (result == 0 && rung_userfault() >= 0)
            result = os_userfault_register(rung_userfault(), from, bytes);
        if (result == 0) {
            span->committed_pages = (uint32_t)end;
            return 0;
        }
        if (end == page_after) return result;
        end = page_after; /* near the limit of committed memory: only what is needed */
    }
}
