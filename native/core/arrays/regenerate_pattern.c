/* A pattern that repeats from the array's beginning; of one element, a constant. */
#include <string.h>

#include "vrange.h"

int vrange_regenerate_pattern(void *to, size_t offset, size_t bytes, void *context) {
    const vrange_pattern *pattern = context;
    const char *data = pattern->data;
    char *at = to;
    /* Copy one period, rotated to where the offset falls in it; then double what is there. */
    const size_t start = offset % pattern->bytes;
    size_t done = pattern->bytes - start < bytes ? pattern->bytes - start : bytes;
    memcpy(at, data + start, done);
    if (done < bytes) {
        size_t rest = start < bytes - done ? start : bytes - done;
        memcpy(at + done, data, rest);
        done += rest;
    }
    while (done < bytes) {
        size_t some = done < bytes - done ? done : bytes - done;
        memcpy(at + done, at, some);
        done += some;
    }
    return 0;
}
