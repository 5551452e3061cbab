/* Reading a peer's memory; see peer_read.h.
 *
 * One system call copies, in this order: the word with the range's state, the value, the word again, the
 * owner's rung, the number of its mends, and its canary.
 *
 * - The owner changes the word, by its state or its generation, before it changes the content. So the value is
 *   whole if both copies of the word say that the range is there.
 * - While the owner's userfaultfd is open, the call ends at a page that the kernel took. Once other code has
 *   closed the userfaultfd, such a page reads as zeros.
 * - The canary tells the two apart: it is a page that the owner never fills. If the userfaultfd is open, the
 *   call ends there, after everything else was copied.
 * - The owner may have opened a new userfaultfd (a mend) since it last published a range. Pages that were lost
 *   before may then read as zeros, although the canary ends the call. The number of mends shows that.
 * - On the eager rung there is no canary: the kernel takes nothing, so what was not discarded is unchanged. */
#include "service/peer_read.h"

#include <errno.h>

#include "base/rung.h"
#include "os/os.h"
#include "ranges/range_place.h"
#include "vrange.h"

bool peer_may_read(void) {
    const int rung = vrange_rung();
    return rung == VRANGE_RUNG_REFAULT || rung == VRANGE_RUNG_EAGER;
}

static struct iovec at(uint64_t address, size_t bytes) {
    return (struct iovec){(void *)(uintptr_t)address, bytes};
}

static int read_some(const index_member *owner, const index_place *place, size_t from, char *to, size_t bytes) {
    uint64_t before = 0, after = 0, mends = 0, canary = 0;
    int rung = 0;
    const bool has_canary = owner->rung == VRANGE_RUNG_REFAULT;
    const struct iovec local[] = {
        {&before, sizeof before},
        {to, bytes},
        {&after, sizeof after},
        {&rung, sizeof rung},
        {&mends, sizeof mends},
        {&canary, sizeof canary},
    };
    const struct iovec remote[] = {
        at(place->at.word_at, sizeof before),
        at(place->at.address + from, bytes),
        at(place->at.word_at, sizeof after),
        at(owner->rung_at, sizeof rung),
        at(owner->mends_at, sizeof mends),
        at(owner->canary_at, sizeof canary),
    };
    const size_t parts = sizeof local / sizeof *local - !has_canary;
    const ssize_t got = os_read_parts((uint32_t)atomic_load(&owner->word), local, remote, parts);
    if (got == -ESRCH || got == -EFAULT) return VRANGE_PURGED;
    if (got < 0) return (int)got;
    const size_t expected = sizeof before + bytes + sizeof after + sizeof rung + sizeof mends;
    if ((size_t)got != expected || rung != (int)owner->rung || mends != atomic_load(&owner->mends))
        return VRANGE_PURGED;
    const bool was_there = range_was_there(before, place->at.word, has_canary) &&
                           range_was_there(after, place->at.word, has_canary);
    return was_there ? VRANGE_OK : VRANGE_PURGED;
}

int peer_read(const index_member *owner, const index_place *place, void *to) {
    int result = VRANGE_OK;
    for (size_t done = 0; done < place->bytes && result == VRANGE_OK; done += OS_READ_PARTS_MOST) {
        const size_t left = place->bytes - done, some = left < OS_READ_PARTS_MOST ? left : OS_READ_PARTS_MOST;
        result = read_some(owner, place, done, (char *)to + done, some);
    }
    return result;
}
