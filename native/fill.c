/* Putting content into the pages of a range.
 *
 * On the refault rung a missing page may not simply be written to: the touch would raise SIGBUS.
 * UFFDIO_COPY maps a new page with its content already in place, which is also faster than a fault
 * and a copy (17 against 38 us for 64 KiB). It takes whole pages, so what is left of a part at its
 * end, and small parts, are gathered in one page first. */
#include "fill.h"

#include <stdalign.h>
#include <string.h>

#include "os.h"
#include "rung.h"

#define GATHER_BYTES 65536u /* at least the largest page Linux uses on aarch64 */

int fill_zero(char *address, size_t bytes) {
    /* Elsewhere a page that was never there, or was taken, reads as zeros by itself. */
    return rung_userfault() >= 0 ? os_userfault_zero(rung_userfault(), address, bytes) : 0;
}

static int copy_pages(char *to, const char *from, size_t bytes) {
    if (rung_userfault() >= 0) return os_userfault_copy(rung_userfault(), to, from, bytes);
    memcpy(to, from, bytes);
    return 0;
}

int fill_parts(char *address, const vrange_part *parts, size_t count) {
    const size_t page = os_page_bytes();
    alignas(64) static _Thread_local char gathered[GATHER_BYTES];
    size_t pending = 0; /* bytes gathered and not yet in place */
    for (size_t i = 0; i < count; i++) {
        const char *from = parts[i].data;
        size_t left = parts[i].bytes;
        while (left) {
            if (pending == 0 && left >= page) {
                size_t whole = left - left % page;
                int result = copy_pages(address, from, whole);
                if (result < 0) return result;
                address += whole, from += whole, left -= whole;
                continue;
            }
            size_t some = page - pending < left ? page - pending : left;
            memcpy(gathered + pending, from, some);
            pending += some, from += some, left -= some;
            if (pending == page) {
                int result = copy_pages(address, gathered, page);
                if (result < 0) return result;
                address += page;
                pending = 0;
            }
        }
    }
    if (pending) {
        memset(gathered + pending, 0, page - pending);
        return copy_pages(address, gathered, page);
    }
    return 0;
}
