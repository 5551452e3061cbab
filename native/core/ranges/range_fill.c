/* Puts content into the pages of a range.
 *
 * On the refault rung a missing page can't simply be written to: the touch would raise SIGBUS. UFFDIO_COPY
 * maps a new page with its content already in place. That is also faster than a fault and a copy (17 µs
 * instead of 38 µs for 64 KiB). It copies whole pages only. So small parts, and the rest of a part after its
 * last whole page, are first gathered in one page. */
#include "ranges/range_fill.h"

#include <errno.h>
#include <string.h>

#include "os/os.h"
#include "base/rung.h"
#include "base/scratch.h"

#define OFFER_STEP_BYTES ((size_t)1 << 20)

int fill_zero(char *address, size_t bytes) {
    /* On the other rungs a page that was never touched, or was taken, reads as zeros. */
    const int userfault = rung_userfault();
    if (userfault >= 0) return os_userfault_zero(userfault, address, bytes);
    return rung_still_faults() ? os_map_over(address, bytes) : 0;
}

/* Copies whole pages. `gathered` is scratch memory that holds nothing now. */
static int copy_pages(char *to, const char *from, size_t bytes, char *gathered) {
    const int userfault = rung_userfault();
    if (userfault < 0) {
        const int result = rung_still_faults() ? os_map_over(to, bytes) : 0;
        if (result == 0) memcpy(to, from, bytes);
        return result;
    }
    int result = os_userfault_copy(userfault, to, from, bytes);
    if (result != -EFAULT) return result;
    /* The source itself has a lost page: it is a volatile array. The kernel's copy does not refill that
     * page, but our own touch does. */
    for (size_t done = 0; done < bytes;) {
        size_t some = bytes - done < SCRATCH_BYTES ? bytes - done : SCRATCH_BYTES;
        memcpy(gathered, from + done, some);
        result = os_userfault_copy(rung_userfault(), to + done, gathered, some);
        if (result < 0) return result;
        done += some;
    }
    return 0;
}

/* If `offers`, copies in steps and offers each one. A process that needs memory meanwhile can then take it
 * from the copy, and is not killed for lack of it. */
static int copy_steps(char *to, const char *from, size_t bytes, bool offers, char *gathered) {
    const size_t step = offers ? OFFER_STEP_BYTES : bytes;
    for (size_t done = 0; done < bytes; done += step) {
        const size_t some = bytes - done < step ? bytes - done : step;
        int result = copy_pages(to + done, from + done, some, gathered);
        if (result < 0) return result;
        if (offers) os_lazyfree(to + done, some);
    }
    return 0;
}

static int fill_gathering(char *address, const vrange_part *parts, size_t count, bool offers,
                          char *gathered) {
    const size_t page = os_page_bytes();
    size_t pending = 0; /* bytes that are gathered and not copied yet */
    for (size_t i = 0; i < count; i++) {
        const char *from = parts[i].data;
        size_t left = parts[i].bytes;
        while (left) {
            int result = 0;
            if (pending == 0 && left >= page) {
                size_t whole = left - left % page;
                result = copy_steps(address, from, whole, offers, gathered);
                address += whole, from += whole, left -= whole;
            } else {
                size_t some = page - pending < left ? page - pending : left;
                memcpy(gathered + pending, from, some);
                pending += some, from += some, left -= some;
                if (pending == page) {
                    result = copy_pages(address, gathered, page, gathered);
                    address += page;
                    pending = 0;
                }
            }
            if (result < 0) return result;
        }
    }
    if (pending == 0) return 0;
    memset(gathered + pending, 0, page - pending);
    return copy_pages(address, gathered, page, gathered);
}

int fill_parts(char *address, const vrange_part *parts, size_t count, bool offers) {
    char *gathered = scratch_take();
    if (!gathered) return -ENOBUFS; /* no room, which letting go of other ranges does not change */
    int result = fill_gathering(address, parts, count, offers, gathered);
    scratch_give(gathered);
    return result;
}

void fill_over(char *address, const vrange_part *parts, size_t count) {
    const size_t page = os_page_bytes();
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(address + bytes, parts[i].data, parts[i].bytes);
        bytes += parts[i].bytes;
    }
    const size_t after = bytes % page;
    if (after) memset(address + bytes, 0, page - after);
}
