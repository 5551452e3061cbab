/* The content of a file, read again where it was lost. */
#include "os/os.h"
#include "os/os_kept_descriptors.h"
#include "vrange.h"

int vrange_regenerate_file(void *to, size_t offset, size_t bytes, void *context) {
    const vrange_file *file = context;
    const os_held held = {
        .number = file->descriptor, .device = file->device, .inode = file->inode};
    return -os_read_held_at(&held, file->path, to, bytes, file->offset + offset);
}
