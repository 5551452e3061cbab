/* soak SECONDS WORKERS: pins for a long time, from threads and forked children, while the kernel takes what is
 * offered. scripts/soak runs it in a cgroup whose limit goes up and down, and adds up what it prints.
 *
 * A pin says of which pages the content is there: of all, or, in every other range, of those that it does not list
 * as lost. They are checked at two moments while the range is pinned: words of every page, and of one range in 16
 * every word. The content of a page can't be zeros, nor that of another page. With -DCONTROL a pin only looks
 * whether the pages are resident and does not secure them; then the check must find losses, or it could not find a
 * defect either. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "os/os.h"
#include "ranges/range_table.h"

#define RANGES 448
#define PAGES 64
#define PAGE vrange_page_bytes()
#define BYTES (PAGES * PAGE)
#define WORDS (PAGE / sizeof(uint64_t)) /* of a page */
#define ALL UINT64_MAX /* pages of a range: a bit for each */
#define WORKERS_MOST 16
#define CHILD_SECONDS 5
#define TAKE_US 600 /* more often, these calls take the time of the pins */

typedef struct {
    _Atomic uint64_t pins, page_pins, of_offered, losses, wrong, signals, errors, forks, lost_children;
    _Atomic uint64_t lost_pages;
} counts;

static counts *total; /* shared with the children */
static uint64_t handles[RANGES], seeds[RANGES];
static pthread_mutex_t locks[RANGES];
static _Atomic bool stop;
static _Thread_local sigjmp_buf before_check;
static _Thread_local volatile sig_atomic_t checks;

#ifdef CONTROL
bool __wrap_sentinel_secures(range *r, uint32_t page);
bool __wrap_sentinel_secures(range *r, uint32_t page) {
    return os_is_resident((char *)range_address(r) + page * vrange_page_bytes());
}

int __real_os_populate(void *address, size_t bytes);
int __wrap_os_populate(void *address, size_t bytes);
int __wrap_os_populate(void *address, size_t bytes) {
    unsigned char pages[PAGES];
    if (bytes != BYTES) return __real_os_populate(address, bytes); /* the canary, for example */
    if (os_residency(address, bytes, pages) < 0) return -EPERM;
    return memchr(pages, 0, PAGES) ? -EFAULT : 0;
}
#endif

static void on_bus(int number) {
    if (checks) siglongjmp(before_check, number);
    _exit(3);
}

static uint64_t next(uint64_t x) { return x ^= x << 13, x ^= x >> 7, x ^= x << 17; }

static size_t wrong_in(const uint64_t *words, uint64_t seed, uint64_t random, uint64_t lost) {
    const bool is_whole = random >> 60 == 0;
    size_t wrong = 0;
    for (size_t page = 0; page < PAGES; page++) {
        const size_t first = page * WORDS, any = first + (random >> page % 40) % WORDS, last = first + WORDS - 1;
        if (lost >> page & 1) continue;
        for (size_t i = first; is_whole && i <= last; i++) wrong += words[i] != word_at(seed, i);
        wrong += (words[first] != word_at(seed, first)) + (words[any] != word_at(seed, any)) +
                 (words[last] != word_at(seed, last));
    }
    return wrong;
}

/* Pages of other content than before, if all are lost. */
static void renew(size_t i, uint64_t lost) {
    uint64_t *words = vrange_address(handles[i]);
    if (lost == ALL) seeds[i]++;
    for (size_t word = 0; word < PAGES * WORDS; word++) {
        if (lost >> word / WORDS & 1) words[word] = word_at(seeds[i], word);
        else word += WORDS - 1;
    }
    CHECK(vrange_refilled(handles[i]) == VRANGE_OK);
}

static uint64_t lost_of(size_t i) {
    vrange_block blocks[PAGES];
    uint64_t lost = 0;
    const int64_t count = vrange_lost_blocks(handles[i], blocks, PAGES);
    CHECK(count > 0 && count <= PAGES);
    for (int64_t b = 0; b < count; b++) {
        const size_t first = blocks[b].offset / PAGE, pages = blocks[b].bytes / PAGE;
        CHECK(pages > 0 && first + pages <= PAGES);
        lost |= (pages == PAGES ? ALL : (UINT64_C(1) << pages) - 1) << first;
    }
    return lost;
}

static void check_pinned(size_t i, uint64_t random, uint64_t lost) {
    const uint64_t *words = vrange_address(handles[i]);
    volatile size_t wrong = 0;
    if (sigsetjmp(before_check, 1) == 0) {
        checks = 1;
        wrong = wrong_in(words, seeds[i], random, lost);
        os_yield();
        wrong += wrong_in(words, seeds[i], next(random), lost);
    } else {
        total->signals++;
        wrong = 1;
    }
    checks = 0;
    total->page_pins += (uint64_t)__builtin_popcountll(~lost);
    total->wrong += wrong;
    if (wrong) {
        vrange_release(handles[i]);
        vrange_discard(handles[i]);
        vrange_pin(handles[i]);
    }
    if (wrong || lost) renew(i, wrong ? ALL : lost);
}

static void *pin(void *number) {
    uint64_t random = ((uint64_t)(uintptr_t)number + (uint64_t)getpid()) * 0x9e3779b97f4a7c15ull;
    while (!atomic_load(&stop)) {
        random = next(random);
        const size_t i = random % RANGES;
        if (pthread_mutex_trylock(&locks[i])) continue;
        const bool was_offered = vrange_state(handles[i]) == VRANGE_STATE_OFFERED;
        const int result = vrange_pin(handles[i]);
        if (result == VRANGE_OK || result == VRANGE_PURGED) {
            const uint64_t lost = result == VRANGE_PURGED ? lost_of(i) : 0;
            const uint64_t there = PAGES - (uint64_t)__builtin_popcountll(lost);
            total->losses += lost != 0;
            total->lost_pages += PAGES - there;
            check_pinned(i, random, lost);
            if (was_offered) total->of_offered += there;
        } else {
            total->errors++;
        }
        total->pins++;
        if (result >= 0) CHECK(vrange_release(handles[i]) == VRANGE_OK);
        pthread_mutex_unlock(&locks[i]);
    }
    return NULL;
}

static void *take(void *unused) {
    (void)unused;
    uint64_t random = 88172645463325252ull;
    while (!atomic_load(&stop)) {
        random = next(random);
        const size_t page = (random >> 20) % PAGES, most = PAGES - page, some = 1 + (random >> 30) % 8;
        char *address = (char *)vrange_address(handles[random % RANGES]) + page * vrange_page_bytes();
        madvise(address, (some < most ? some : most) * vrange_page_bytes(), MADV_PAGEOUT);
        usleep(TAKE_US);
    }
    return NULL;
}

static void work(unsigned seconds, unsigned workers) {
    pthread_t threads[WORKERS_MOST + 1];
    atomic_store(&stop, false);
    for (uintptr_t i = 0; i < workers; i++) CHECK(pthread_create(&threads[i], NULL, pin, (void *)i) == 0);
    CHECK(pthread_create(&threads[workers], NULL, take, NULL) == 0);
    sleep(seconds);
    atomic_store(&stop, true);
    for (unsigned i = 0; i <= workers; i++) pthread_join(threads[i], NULL);
}

int main(int count, char **arguments) {
    const unsigned seconds = count > 1 ? (unsigned)atoi(arguments[1]) : 20;
    unsigned workers = count > 2 ? (unsigned)atoi(arguments[2]) : 3;
    if (workers > WORKERS_MOST) workers = WORKERS_MOST;
    const struct sigaction action = {.sa_handler = on_bus, .sa_flags = SA_NODEFER};
    sigaction(SIGBUS, &action, NULL);
    total = mmap(NULL, sizeof *total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(total != MAP_FAILED);
    vrange_account *account;
    vrange_arena *arena = open_arena(512 * MIB, &account);
    CHECK(vrange_reserve_start(64 * MIB, 500000, true) == 0);
    for (size_t i = 0; i < RANGES; i++) {
        pthread_mutex_init(&locks[i], NULL);
        CHECK(vrange_allocate(arena, BYTES, &handles[i]) == 0);
        CHECK(vrange_set_partial(handles[i], i % 2) == VRANGE_OK);
        write_words(vrange_address(handles[i]), BYTES, ++seeds[i]);
        CHECK(vrange_release(handles[i]) == VRANGE_OK);
    }
    /* A child finds every range purged, and works beside its parent; the fork comes while no thread holds a lock
     * of this program. */
    for (unsigned passed = 0; passed < seconds; passed += CHILD_SECONDS) {
        const pid_t child = fork();
        CHECK(child >= 0);
        work(CHILD_SECONDS, workers);
        if (child == 0) _exit(0);
        total->forks++;
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        total->lost_children += status != 0;
    }
    printf("{\"rung\": %d, \"pins\": %lu, \"page_pins\": %lu, \"of_offered\": %lu, \"losses\": %lu, "
           "\"lost_pages\": %lu, \"wrong\": %lu, \"signals\": %lu, \"errors\": %lu, \"forks\": %lu, \"lost_children\": %lu}\n",
           vrange_rung(), total->pins, total->page_pins, total->of_offered, total->losses,
           total->lost_pages, total->wrong, total->signals, total->errors, total->forks, total->lost_children);
    return 0;
}
