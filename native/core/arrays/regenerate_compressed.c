/* Blocks that are kept compressed in memory, each separately, in zlib's format.
 *
 * zlib allocates its state through functions that the caller passes. Here they use a scratch buffer of
 * their own, so that the signal handler allocates nothing.
 *
 * libvrange is not linked to zlib: a program that preloads it would get another library's functions beside its
 * own. Here they are seen by this file only. */
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <zlib.h>

#include "base/scratch.h"
#include "vrange.h"

static struct {
    int (*begin)(z_streamp, const char *, int);
    int (*inflate)(z_streamp, int);
    int (*end)(z_streamp);
    _Atomic bool is_loaded;
} zlib;

int vrange_compressed_prepare(void) {
    if (atomic_load(&zlib.is_loaded)) return 0;
    void *library = dlopen("libz.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return -ELIBACC;
    /* Two threads may store the same values. */
    *(void **)&zlib.begin = dlsym(library, "inflateInit_");
    *(void **)&zlib.inflate = dlsym(library, "inflate");
    *(void **)&zlib.end = dlsym(library, "inflateEnd");
    if (!zlib.begin || !zlib.inflate || !zlib.end) return -ELIBACC;
    atomic_store(&zlib.is_loaded, true);
    return 0;
}

typedef struct {
    char *at;
    size_t left;
} room;

static void *take_room(void *opaque, unsigned count, unsigned size) {
    room *r = opaque;
    size_t bytes = ((size_t)count * size + 15) & ~(size_t)15;
    if (bytes > r->left) return NULL;
    void *taken = r->at;
    r->at += bytes;
    r->left -= bytes;
    return taken;
}

static void keep_room(void *opaque, void *taken) { (void)opaque, (void)taken; }

static int inflate_block(void *to, size_t bytes, const void *from, size_t size, char *state) {
    room r = {.at = state, .left = SCRATCH_BYTES};
    z_stream stream = {.zalloc = take_room,
                       .zfree = keep_room,
                       .opaque = &r,
                       .next_in = (Bytef *)(uintptr_t)from,
                       .avail_in = (uInt)size};
    if (zlib.begin(&stream, ZLIB_VERSION, (int)sizeof stream) != Z_OK) return ENOMEM;
    stream.next_out = to;
    stream.avail_out = (uInt)bytes;
    /* In one call, with room for all of the output: then zlib needs no window of its own. */
    int result = zlib.inflate(&stream, Z_FINISH);
    zlib.end(&stream);
    return result == Z_STREAM_END && stream.avail_out == 0 ? 0 : EBADMSG;
}

int vrange_regenerate_compressed(void *to, size_t offset, size_t bytes, void *context) {
    const vrange_compressed *blocks = context;
    if (!atomic_load(&zlib.is_loaded)) return ELIBACC; /* it was not prepared */
    char *state = scratch_take();
    if (!state) return ENOMEM;
    int result = 0;
    for (size_t done = 0; done < bytes && result == 0;) {
        size_t block = (offset + done) / blocks->block_bytes;
        size_t some = bytes - done < blocks->block_bytes ? bytes - done : blocks->block_bytes;
        if (block >= blocks->count) result = ENODATA;
        else
            result = inflate_block((char *)to + done, some, blocks->blocks[block],
                                   blocks->sizes[block], state);
        done += some;
    }
    scratch_give(state);
    return result;
}
