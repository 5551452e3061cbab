/* Discards blocks of an array; see array_discard.h. */
#include "arrays/array_discard.h"

#include <errno.h>

#include "arrays/array_blocks.h"
#include "arrays/array_offer.h"
#include "base/gate.h"
#include "os/os.h"

static int discard_run(vrange_array *array, size_t first, size_t count) {
    char *address = array_block(array, first);
    const size_t bytes = whole_blocks_bytes(array, first, count);
    int result = os_lazyfree(address, bytes);
    if (result == 0) result = os_pageout(address, bytes);
    /* The kernel skips pages that another processor still has in a batch of its own. */
    if (result == 0 || result == -EINVAL) result = os_discard(address, bytes); /* -EINVAL: locked (mlockall) */
    give_blocks(array, first, count);
    return result;
}

int discard_unpinned(vrange_array *array) {
    const size_t run_most = (64u << 20) / array->block_bytes;
    int worst = 0;
    for (size_t block = 0; block < array->blocks;) {
        size_t count = 0;
        uint32_t pins = 0;
        while (count < run_most && block + count < array->blocks &&
               take_block(array, block + count, &pins))
            count++;
        if (count) {
            int result = discard_run(array, block, count);
            if (result < 0) worst = result;
        }
        if (count) block += count;
        else if (pins & BLOCK_BUSY) os_yield(); /* the block is just being offered */
        else block++;
    }
    return worst;
}

int vrange_array_discard(vrange_array *array) {
    gate_enter();
    int result = discard_unpinned(array);
    gate_leave();
    return result;
}
