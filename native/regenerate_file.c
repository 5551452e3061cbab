/* What a file holds, read again where it was lost. */
#include "os.h"
#include "vrange.h"

int vrange_regenerate_file(void *to, size_t offset, size_t bytes, void *context) {
    const vrange_file *file = context;
    return -os_read_at(file->descriptor, to, bytes, file->offset + offset);
}
