/* The heap while calls fail; see failing_calls.h. */
#include "failing_calls.h"

#include "heap/heap.h"
#include "reserve/return_space.h"

static void heap(void) {
    static const size_t sizes[] = {64 << 10, 1 << 20, 9 << 20, 40 << 20, 3 << 20};
    uint64_t *blocks[5];
    if (!did(heap_open("heap"))) return;
    for (uint64_t i = 0; i < 5; i++) {
        size_t stale;
        blocks[i] = heap_allocate(sizes[i], &stale);
        if (!blocks[i]) continue;
        heap_clear(blocks[i], stale);
        CHECK(blocks[i][0] == 0 && blocks[i][sizes[i] / 8 - 1] == 0);
        blocks[i][0] = blocks[i][sizes[i] / 8 - 1] = i + 1;
    }
    if (blocks[1] && heap_resize(blocks[1], 2 << 20)) blocks[1][(2 << 20) / 8 - 1] = 2;
    if (blocks[2] && heap_resize(blocks[2], 4 << 20)) CHECK(blocks[2][0] == 3);
    const int moved = blocks[4] && blocks[3] ? heap_move(blocks[3], blocks[4], 3 << 20) : -EINVAL;
    if (moved == -ENOMEM) blocks[3] = NULL; /* there may be no memory */
    if (moved == 0) CHECK(blocks[3][0] == 5);
    else if (blocks[4]) CHECK(blocks[4][0] == 5 && blocks[4][(3 << 20) / 8 - 1] == 5);
    for (int i = 0; i < 5; i++) {
        if (blocks[i]) heap_free(blocks[i]);
        if (i == 2) vrange_heap_trim();
    }
    vrange_heap_info info;
    vrange_heap_read(&info);
    vrange_heap_unused();
    vrange_heap_return_idle(1);
    vrange_heap_trim();
    vrange_heap_return_idle(0);
}

/* As malloc opens it: nothing is counted until there is a name. */
static void heap_without_name(void) {
    size_t stale;
    if (!did(heap_open(NULL))) return;
    char *const block = heap_allocate(5 * MIB, &stale), *const more = heap_allocate(MIB, &stale);
    if (block) heap_free(block);
    did(heap_open("named"));
    if (more) heap_free(more);
    heap_use_huge_pages(true);
    char *const huge = heap_allocate(16 * MIB, &stale);
    if (huge) memset(huge, 1, 16 * MIB);
    if (huge) heap_free(huge);
    vrange_heap_trim();
    return_space_for(64 * MIB);
    return_space_if_changed();
}

static const operation operations[] = {
    {"first heap", heap, .is_first = true},
    {"heap", heap},
    {"heap without name", heap_without_name, .is_first = true},
};

int main(int count, char **arguments) {
    return try_operations(operations, sizeof operations / sizeof *operations, count, arguments);
}
