/* Makes, checks and maps the file; see index_file.h.
 *
 * The caller holds the lock of the directory, so no other process makes or removes the file meanwhile. A
 * process that is killed while it makes the file leaves one without the magic: the next one replaces it. */
#include "service/index_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "os/os.h"
#include "vrange.h"

static size_t in_pages(size_t bytes) { return (bytes + INDEX_PAGE - 1) / INDEX_PAGE * INDEX_PAGE; }

typedef struct {
    size_t members, flights, blocks, buckets, cells, end;
} places;

static places places_of(uint32_t buckets, uint32_t blocks) {
    places at = {.members = INDEX_PAGE};
    at.flights = at.members + in_pages(MEMBERS * sizeof(index_member));
    at.blocks = at.flights + in_pages(FLIGHTS * sizeof(index_flight));
    at.buckets = at.blocks + in_pages(blocks * sizeof(index_block));
    at.cells = at.buckets + in_pages((size_t)buckets * WAYS * sizeof(uint64_t));
    at.end = at.cells + (size_t)blocks * BLOCK_BYTES;
    return at;
}

static bool is_power_of_two(uint32_t number) { return number && (number & (number - 1)) == 0; }

/* The file may change while it is checked, so this is a copy of its header. */
static int check(const index_header *head, size_t bytes) {
    if (memcmp(head->magic, INDEX_MAGIC, sizeof head->magic) != 0) return -EBADMSG;
    if (head->version != INDEX_VERSION) return -EPROTO;
    if (head->page_bytes != INDEX_PAGE || !is_power_of_two(head->buckets) || head->buckets > BUCKETS_MOST ||
        head->blocks == 0 || head->blocks > BLOCKS_MOST || head->bytes != bytes ||
        places_of(head->buckets, head->blocks).end != bytes)
        return -EBADMSG;
    return 0;
}

/* Other code may cut the file at any time, and nothing mends a touch of it before this process is a member. */
static int make(const char *path, uint32_t buckets, uint32_t blocks) {
    const places at = places_of(buckets, blocks);
    const index_header head = {.magic = INDEX_MAGIC,
                               .version = INDEX_VERSION,
                               .page_bytes = INDEX_PAGE,
                               .buckets = buckets,
                               .blocks = blocks,
                               .bytes = at.end};
    void *made = NULL;
    int result = os_share(path, at.end, &made);
    if (result < 0) return result;
    result = os_populate(made, at.cells);
    if (result == -EINVAL) result = os_allocate(path, 0, at.cells); /* before Linux 5.14 */
    os_unreserve(made, at.end);
    if (result == 0) result = os_write_first(path, &head, sizeof head);
    if (result < 0) os_remove(path);
    return result == -EFAULT ? -ENOSPC : result;
}

static index_own *own_memory(uint32_t blocks) {
    const size_t bytes = in_pages(sizeof(index_own) + (size_t)CELL_CLASSES * blocks * sizeof(uint32_t));
    index_own *own = os_map(bytes);
    if (!own) return NULL;
    if (os_wipe_on_fork(own, bytes) == 0) return own;
    os_unreserve(own, bytes);
    return NULL;
}

int vrange_shared_open(const char *path, uint32_t buckets, uint32_t blocks, vrange_shared **out) {
    vrange_shared *s = calloc(1, sizeof *s);
    if (!s) return -ENOMEM;
    index_header head;
    os_mapping file;
    int result = os_map_file(path, &head, sizeof head, &file);
    if (result == -ENOENT) {
        if (!is_power_of_two(buckets) || buckets > BUCKETS_MOST || !blocks || blocks > BLOCKS_MOST) {
            free(s);
            return -EINVAL;
        }
        result = make(path, buckets, blocks);
        if (result == 0) result = os_map_file(path, &head, sizeof head, &file);
    }
    if (result == 0) {
        result = check(&head, file.bytes);
        if (result < 0) os_unreserve(file.address, file.bytes);
    }
    if (result == 0) {
        s->own = own_memory(head.blocks);
        if (!s->own) {
            os_unreserve(file.address, file.bytes);
            result = -ENOMEM;
        }
    }
    if (result < 0) {
        free(s);
        return result;
    }
    const places at = places_of(head.buckets, head.blocks);
    s->base = file.address;
    s->bytes = file.bytes;
    s->device = file.device;
    s->inode = file.inode;
    s->bucket_mask = head.buckets - 1;
    s->block_count = head.blocks;
    s->members = (index_member *)(void *)(s->base + at.members);
    s->flights = (index_flight *)(void *)(s->base + at.flights);
    s->blocks = (index_block *)(void *)(s->base + at.blocks);
    s->words = (_Atomic uint64_t *)(void *)(s->base + at.buckets);
    s->cells = s->base + at.cells;
    *out = s;
    return 0;
}

void vrange_shared_empty(vrange_shared *s) {
    (void)os_empty_shared(s->base, s->bytes); /* refused: the memory is freed with the process */
}

int vrange_shared_is_at(const vrange_shared *s, const char *path) {
    uint64_t device, inode;
    if (atomic_load(&s->is_cut)) return 0;
    return os_file_identity(path, &device, &inode) == 0 && device == s->device && inode == s->inode;
}

const uint64_t *vrange_shared_words(const vrange_shared *s, size_t *count) {
    *count = ((size_t)s->bucket_mask + 1) * WAYS;
    return (const uint64_t *)s->words;
}
