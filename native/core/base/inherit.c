/* Marks what the child of a fork inherits; see inherit.h. */
#include "base/inherit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "os/os.h"

/* Each run of kept pages costs a few microseconds and up to three mappings, of which a process may have
 * 65530. Beyond RUNS_MOST runs the nearest ones are joined, and the child inherits what lies between them. */
#define RUNS_MOST 4096
#define GAPS_AT_ONCE 256
#define JOIN_BYTES_LEAST ((size_t)64 << 10)

typedef struct {
    char *from, *to;
    bool is_wiped; /* the child finds it empty, except for kept spans */
} area;

typedef struct {
    void *items;
    size_t count, capacity; /* in items */
} list;

static struct {
    list areas, spans;
    size_t join_bytes;
    bool is_complete;
    bool is_lost;  /* what had to be kept could not be: the child would find zeros there */
    bool is_stuck; /* a mark could not be removed: some area may still be wiped at any fork */
} inherit;

/* Room for one more item; NULL without memory. The lists are reused at the next fork. Not from malloc, as
 * another fork handler may hold its locks. */
static void *add(list *to, size_t item_bytes) {
    if (to->count == to->capacity) {
        const size_t capacity = to->capacity ? 2 * to->capacity : 2 * os_page_bytes() / item_bytes;
        void *more = os_map_larger(to->items, to->capacity * item_bytes, capacity * item_bytes);
        if (!more) return NULL;
        to->items = more;
        to->capacity = capacity;
    }
    return (char *)to->items + to->count++ * item_bytes;
}

void inherit_begin(void) {
    inherit.areas.count = inherit.spans.count = 0;
    inherit.is_complete = true;
    inherit.is_lost = false;
}

void inherit_area(char *address, size_t bytes) {
    area *place = add(&inherit.areas, sizeof *place);
    if (place) *place = (area){address, address + bytes, false};
    else inherit.is_complete = false;
}

void inherit_keep(char *address, size_t bytes, uint32_t range) {
    inherited_span *place = add(&inherit.spans, sizeof *place);
    if (place) *place = (inherited_span){address, address + bytes, range};
    else inherit.is_complete = false;
}

const inherited_span *inherited_spans(size_t *count) {
    *count = inherit.spans.count;
    return inherit.spans.items;
}

static int by_address(const void *left, const void *right) {
    /* `from` is the first member of both structs */
    const char *a = *(char *const *)left, *b = *(char *const *)right;
    return (a > b) - (a < b);
}

static void sort(list *all, size_t item_bytes) {
    if (all->count > 1) qsort(all->items, all->count, item_bytes, by_address);
}

static size_t count_runs(size_t join_bytes) {
    const inherited_span *spans = inherit.spans.items;
    size_t runs = inherit.spans.count > 0;
    for (size_t i = 1; i < inherit.spans.count; i++)
        runs += (size_t)(spans[i].from - spans[i - 1].to) > join_bytes;
    return runs;
}

/* ---- walking the areas and what is kept in them ----------------------------------------------- */

/* Iterates over the spans of one area after another: both lists are sorted. */
static const inherited_span *next_span_in(const area *in, size_t *next) {
    const inherited_span *spans = inherit.spans.items;
    if (*next == inherit.spans.count || spans[*next].from >= in->to) return NULL;
    return &spans[(*next)++];
}

/* The next run of spans that are close enough to be kept as one. */
static bool next_run_in(const area *in, size_t *next, char **from, char **to) {
    const inherited_span *span = next_span_in(in, next), *spans = inherit.spans.items;
    if (!span) return false;
    *from = span->from;
    *to = span->to;
    while (*next < inherit.spans.count && spans[*next].from < in->to &&
           (size_t)(spans[*next].from - *to) <= inherit.join_bytes)
        *to = spans[(*next)++].to;
    return true;
}

static void mark_area(area *one, size_t *next) {
    one->is_wiped = os_wipe_on_fork(one->from, (size_t)(one->to - one->from)) == 0;
    char *from, *to;
    while (next_run_in(one, next, &from, &to)) {
        if (!one->is_wiped || os_keep_on_fork(from, (size_t)(to - from)) == 0) continue;
        /* For example, the process can't have more mappings: then the child inherits the whole area. */
        if (os_keep_on_fork(one->from, (size_t)(one->to - one->from)) == 0) one->is_wiped = false;
        else inherit.is_lost = true;
    }
}

/* The spans of many caches mostly lie side by side, and each area costs system calls. */
static void join_areas(void) {
    area *areas = inherit.areas.items;
    size_t joined = 0;
    for (size_t i = 0; i < inherit.areas.count; i++) {
        if (joined && areas[joined - 1].to == areas[i].from) areas[joined - 1].to = areas[i].to;
        else areas[joined++] = areas[i];
    }
    inherit.areas.count = joined;
}

void inherit_mark_nothing(void) {
    if (!inherit.is_complete) return;
    sort(&inherit.areas, sizeof(area));
    join_areas();
    sort(&inherit.spans, sizeof(inherited_span));
    inherit.join_bytes = 0;
}

void inherit_mark(void) {
    if (!inherit.is_complete) return;
    inherit_mark_nothing();
    while (count_runs(inherit.join_bytes) > RUNS_MOST)
        inherit.join_bytes = inherit.join_bytes ? 2 * inherit.join_bytes : JOIN_BYTES_LEAST;
    area *areas = inherit.areas.items;
    for (size_t i = 0, next = 0; i < inherit.areas.count; i++) mark_area(&areas[i], &next);
}

void inherit_unmark(void) {
    area *areas = inherit.areas.items;
    if (!inherit.is_complete) return;
    for (size_t i = 0; i < inherit.areas.count; i++) {
        if (areas[i].is_wiped && os_keep_on_fork(areas[i].from, (size_t)(areas[i].to - areas[i].from)) < 0)
            inherit.is_stuck = true;
    }
}

/* Gaps to be emptied by one system call. */
typedef struct {
    struct iovec gaps[GAPS_AT_ONCE];
    size_t count;
} batch;

static int empty(batch *b) {
    int result = 0;
    if (b->count && os_discard_many(b->gaps, b->count) < 0) {
        for (size_t i = 0; result == 0 && i < b->count; i++)
            result = os_map_over(b->gaps[i].iov_base, b->gaps[i].iov_len);
    }
    b->count = 0;
    return result;
}

static int add_gap(batch *b, char *from, char *to) {
    if (from == to) return 0;
    b->gaps[b->count++] = (struct iovec){from, (size_t)(to - from)};
    return b->count == GAPS_AT_ONCE ? empty(b) : 0;
}

/* The child inherited the gaps between the spans of an area if the area was not wiped, or if the gap is
 * narrow. */
static int settle_area(const area *one, size_t *next, batch *b) {
    char *kept_up_to = one->from;
    int result = 0;
    for (const inherited_span *span; result == 0 && (span = next_span_in(one, next));) {
        const bool is_joined =
            kept_up_to > one->from && (size_t)(span->from - kept_up_to) <= inherit.join_bytes;
        if (!one->is_wiped || is_joined) result = add_gap(b, kept_up_to, span->from);
        kept_up_to = span->to;
    }
    if (result == 0 && !one->is_wiped) result = add_gap(b, kept_up_to, one->to);
    return result;
}

int inherit_settle(void) {
    if (!inherit.is_complete) return inherit.is_stuck ? -ENOMEM : 1;
    inherit_unmark();
    if (inherit.is_lost) return -ENOMEM;
    const area *areas = inherit.areas.items;
    batch b;
    b.count = 0;
    int result = 0;
    for (size_t i = 0, next = 0; result == 0 && i < inherit.areas.count; i++)
        result = settle_area(&areas[i], &next, &b);
    return result == 0 ? empty(&b) : result;
}

static void (*on_settled)(void);

void inherit_register(void (*handler)(void)) { on_settled = handler; }

void inherit_tell_settled(void) {
    if (on_settled) on_settled();
}
