/* Reads what an owner may have offered without userfaultfd; see sentinel_away.h.
 *
 * While a range is offered there, the first word of each page is the sentinel, and the real words are in an
 * array of the owner's. A page that still has its sentinel after it was copied was not taken, because a page
 * that was taken reads as zeros. The owner counts in the range's mark whenever it begins to place or to remove
 * sentinels. So if the count is the same before and after all reads, and the state too, then the range was
 * offered all the time, or not at any time, and the array is the one that belongs to it. */
#include "ranges/sentinel_away.h"

#include <string.h>

#include "base/amounts.h"
#include "os/os.h"
#include "ranges/sentinel.h"

#define TRIES 4
#define WORDS_AT_ONCE 256u

static bool is_whole(uint64_t word, uint64_t generation) {
    return (word & WORD_GENERATION) == generation && !(word & (WORD_LOST | WORD_PARTIAL));
}

static bool is_resident(uint64_t word, uint64_t generation, bool canary_counts) {
    (void)canary_counts;
    return is_whole(word, generation) && word_state(word) == RESIDENT;
}

static bool is_offered(uint64_t word, uint64_t generation, bool canary_counts) {
    (void)canary_counts;
    return is_whole(word, generation) && word_state(word) == OFFERED;
}

static int read_plain(const owner *of, uint64_t from, void *to, size_t bytes) {
    peer_content content = {.from = from, .to = to, .bytes = bytes};
    return peer_read(&of->process, &content);
}

/* Puts the real word where the copy has a sentinel, or the rest of one of which it lacks the first bytes. The
 * copy may end within the word. False: the page was lost. No byte of the sentinel is zero, so a part of it
 * will do. */
static bool put_word(char *copy, size_t bytes, size_t at, size_t lacks, uint64_t real) {
    const uint64_t sentinel = SENTINEL;
    const size_t some = lesser(bytes - at, sizeof real - lacks);
    if (memcmp(copy + at, (const char *)&sentinel + lacks, some) != 0) return false;
    memcpy(copy + at, (const char *)&real + lacks, some);
    return true;
}

/* The copy has the pages' sentinels. */
static int put_words(const owner *of, const range *r, uint64_t from, size_t offset, char *copy, size_t bytes) {
    const size_t page_bytes = os_page_bytes(), end = (offset + bytes + page_bytes - 1) / page_bytes;
    const size_t lacks = offset % page_bytes; /* of its first page */
    uint64_t words_at = 0, real[WORDS_AT_ONCE], first = SENTINEL;
    int result = read_plain(of, (uint64_t)&r->sentinel_words, &words_at, sizeof words_at);
    /* The copy may have no first word of its first page, or a part of that word. */
    if (result == PEER_READ && lacks) result = read_plain(of, from - lacks, &first, sizeof first);
    if (result != PEER_READ) return result;
    if (!words_at || first != SENTINEL) return PEER_LOST;
    if (lacks && lacks < sizeof *real) {
        result = read_plain(of, words_at + offset / page_bytes * sizeof *real, real, sizeof *real);
        if (result != PEER_READ) return result;
        if (!put_word(copy, bytes, 0, lacks, real[0])) return PEER_LOST;
    }
    for (size_t page = (offset + page_bytes - 1) / page_bytes; page < end;) {
        const size_t some = lesser(end - page, WORDS_AT_ONCE);
        result = read_plain(of, words_at + page * sizeof *real, real, some * sizeof *real);
        if (result != PEER_READ) return result;
        for (size_t i = 0; i < some; i++, page++)
            if (!put_word(copy, bytes, page * page_bytes - offset, 0, real[i])) return PEER_LOST;
    }
    return PEER_READ;
}

static int read_once(const owner *of, const range *r, uint64_t generation, uint64_t from, size_t offset,
                     void *to, size_t bytes) {
    uint64_t word = 0;
    int result = read_plain(of, (uint64_t)range_word(r), &word, sizeof word);
    if (result != PEER_READ) return result;
    const bool has_sentinels = word_state(word) == OFFERED;
    peer_content content = {.from = from,
                            .to = to,
                            .bytes = bytes,
                            .word_at = (uint64_t)range_word(r),
                            .accepts = has_sentinels ? is_offered : is_resident,
                            .expected = generation};
    result = peer_read(&of->process, &content);
    return result == PEER_READ && has_sentinels ? put_words(of, r, from, offset, to, bytes) : result;
}

int sentinel_read_away(const owner *of, const range *r, const range_mark *mark, uint64_t generation,
                       uint64_t from, size_t offset, void *to, size_t bytes) {
    int result = PEER_LOST;
    for (int i = 0; i < TRIES; i++) {
        const uint32_t before = atomic_load(&mark->sentinels);
        result = read_once(of, r, generation, from, offset, to, bytes);
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load(&mark->sentinels) == before) return result;
        if (result == PEER_OVER || result == PEER_REFUSED) return result;
        result = PEER_LOST;
    }
    return result;
}
