/* A read of what a child did not inherit meets everything that a read of another process may return, at each of its
 * steps: it is refused, and nothing else changes. The linker puts functions of this file between the core and the
 * reader, and between both and the kernel. */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "base/rung.h"
#include "fork_support.h"
#include "os/os.h"
#include "peers/peer.h"
#include "ranges/owners.h"
#include "ranges/range_busy.h"
#include "ranges/range_marks.h"
#include "ranges/range_table.h"
#include "ranges/sentinel.h"

#define STEPS_MOST 6
#define ALWAYS 0 /* a step */

static const int refusals[] = {PEER_LOST, PEER_OVER, PEER_REFUSED};

static vrange_arena *arena;
static vrange_account *account;
static uint64_t handle;
static uint64_t copy[4096];
static char content[32768];

/* ---- what happens at a step of a read ----------------------------------------------------------- */

static int steps, chosen_step = -1, refusal;
static void (*before_step)(void);
static void (*after_step)(const peer_content *);

int __real_peer_read(const peer *owner, peer_content *c);
int __wrap_peer_read(const peer *owner, peer_content *c);
int __wrap_peer_read(const peer *owner, peer_content *c) {
    const bool is_chosen = ++steps == chosen_step || chosen_step == ALWAYS;
    if (is_chosen && before_step) before_step();
    if (is_chosen && refusal) return refusal;
    const int result = __real_peer_read(owner, c);
    if (is_chosen && after_step) after_step(c);
    return result;
}

/* ---- what the kernel does ----------------------------------------------------------------------- */

static ssize_t answer; /* to a read: an error, or so many bytes; 0: its own */
static int answers;    /* so many times */
static int spoilt;     /* this one is filled with ones: */
enum { NONE,
       PROOF,
       SIGN };

ssize_t __real_os_read_parts(uint32_t pid, const struct iovec *to, size_t to_count, const struct iovec *from,
                             size_t from_count);
ssize_t __wrap_os_read_parts(uint32_t pid, const struct iovec *to, size_t to_count, const struct iovec *from,
                             size_t from_count);
ssize_t __wrap_os_read_parts(uint32_t pid, const struct iovec *to, size_t to_count, const struct iovec *from,
                             size_t from_count) {
    if (answers && answers-- > 0) return answer;
    const ssize_t got = __real_os_read_parts(pid, to, to_count, from, from_count);
    int parts = 0; /* of this size: the proof of the process is first, the sign of its rung second */
    for (size_t i = 0; i < to_count; i++)
        if (to[i].iov_len == sizeof(rung_sign) && ++parts == spoilt) memset(to[i].iov_base, 0xff, sizeof(rung_sign));
    return got;
}

static bool has_gone;

int __real_os_process_state(uint32_t pid, uint64_t started);
int __wrap_os_process_state(uint32_t pid, uint64_t started);
int __wrap_os_process_state(uint32_t pid, uint64_t started) {
    return has_gone ? OS_PROCESS_GONE : __real_os_process_state(pid, started);
}

static bool is_filtered;
static int child_reads, tried;

bool __wrap_os_has_filter(void);
bool __wrap_os_has_filter(void) { return is_filtered; }
int __wrap_os_try_whether_child_reads(void);
int __wrap_os_try_whether_child_reads(void) {
    tried++;
    return child_reads;
}

static bool discards_fail;

int __real_vrange_os_discard(void *at, size_t bytes);
int __wrap_vrange_os_discard(void *at, size_t bytes);
int __wrap_vrange_os_discard(void *at, size_t bytes) { return discards_fail ? -1 : __real_vrange_os_discard(at, bytes); }

static int read_at(size_t from, int step) {
    steps = 0;
    chosen_step = step;
    const int result = vrange_read_away(handle, from, copy, BYTES - from);
    if (result == VRANGE_OK) CHECK(memcmp(copy, content + from, BYTES - from) == 0);
    chosen_step = -1;
    return result;
}

static int steps_from(size_t from) {
    CHECK(read_at(from, -1) == VRANGE_OK);
    return steps;
}

/* Within a page, within the first word of one, and at its beginning. */
static const size_t places[] = {0, 3, 100, 4096, 4096 + 7};
#define PLACES (sizeof places / sizeof *places)

/* ---- tests -------------------------------------------------------------------------------------- */

static void each_step_is_refused(void) {
    for (size_t p = 0; p < PLACES; p++) {
        const int all = steps_from(places[p]);
        CHECK(all >= 1 && all <= STEPS_MOST);
        for (int step = 1; step <= all; step++)
            for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
                IN_CHILD({
                    refusal = refusals[i];
                    CHECK(read_at(places[p], step) == VRANGE_PURGED);
                    refusal = 0;
                    const bool is_over = refusals[i] != PEER_LOST; /* nobody is asked again */
                    CHECK(read_at(places[p], -1) == (is_over ? VRANGE_PURGED : VRANGE_OK));
                    CHECK((steps == 0) == is_over);
                    CHECK(vrange_is_away(handle) == 1);
                });
    }
}

static void spoil(const peer_content *c) { memset(c->to, 0, c->bytes < sizeof(uint64_t) ? c->bytes : 8); }

/* The first word of what a step has read is zero: that of a page that was lost, the place of the saved words, or
 * the range's own word. */
static void zeros_are_a_loss(void) {
    after_step = spoil;
    for (size_t p = 0; p < PLACES; p++) {
        const int all = steps_from(places[p]);
        /* The steps after these read the saved words: each may be right. */
        for (int step = 1; step < all && step <= (places[p] % PAGE ? 4 : 3); step++)
            if (places[p] % PAGE < sizeof(uint64_t) || step != 2) CHECK(read_at(places[p], step) == VRANGE_PURGED);
    }
    after_step = NULL;
    CHECK(read_at(0, -1) == VRANGE_OK);
}

static range_mark *mark_there(void) {
    const range *r = range_of(handle);
    table_chunk *chunk = range_chunk(r);
    return &chunk->owner_marks[word_level(atomic_load(range_word(r)))][r - chunk->ranges];
}

static void count_sentinels(void) { atomic_fetch_add(&mark_there()->sentinels, 1); }

/* The owner places or removes sentinels during a read, which is then tried again, but not for ever. */
static void sentinels_that_change(void) {
    const int all = steps_from(3);
    before_step = count_sentinels;
    CHECK(read_at(3, 2) == VRANGE_OK && steps > all);
    CHECK(read_at(3, ALWAYS) == VRANGE_PURGED);
    refusal = PEER_LOST;
    CHECK(read_at(3, 2) == VRANGE_OK);
    IN_CHILD(refusal = PEER_OVER; CHECK(read_at(3, 2) == VRANGE_PURGED && steps == 2));
    IN_CHILD(refusal = PEER_REFUSED; CHECK(read_at(3, 2) == VRANGE_PURGED && steps == 2));
    refusal = 0;
    before_step = NULL;
}

static void change_there(void) { atomic_store(&mark_there()->changed, UINT32_MAX); }
static void free_here(void) { CHECK(vrange_free(handle) == VRANGE_OK); }

static void changes_meanwhile(void) {
    const uint32_t before = atomic_load(&mark_there()->changed); /* the owner's, in shared memory */
    IN_CHILD(before_step = change_there; CHECK(read_at(0, 1) == VRANGE_PURGED));
    atomic_store(&mark_there()->changed, before);
    IN_CHILD(before_step = free_here; CHECK(read_at(0, 1) == VRANGE_GONE));
    IN_CHILD(CHECK(vrange_discard(handle) == VRANGE_OK); CHECK(read_at(0, -1) == VRANGE_PURGED));
}

static const struct {
    ssize_t answer;
    int answers, spoilt;
    bool has_gone, is_over;
} kernels[] = {
    {-ESRCH, 1, NONE, false, true},
    {-EPERM, 1, NONE, false, true},
    {-EACCES, 1, NONE, false, true},
    {-ENOSYS, 1, NONE, false, true},
    {-EPERM, 1, NONE, true, true},
    {-ENOMEM, 1, NONE, false, false},
    {-EFAULT, 1, NONE, false, false}, /* the page is missing there, and the process is the same */
    {100, 1, NONE, false, false},
    {-EFAULT, 2, NONE, false, true}, /* another program runs there */
    {0, 0, PROOF, false, true},
    {0, 0, SIGN, false, false},
};

static void each_answer_of_the_kernel(void) {
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        IN_CHILD({
            answer = kernels[i].answer, answers = kernels[i].answers;
            spoilt = kernels[i].spoilt, has_gone = kernels[i].has_gone;
            CHECK(read_at(100, -1) == VRANGE_PURGED);
            spoilt = NONE, answers = 0;
            CHECK((read_at(100, -1) == VRANGE_PURGED) == kernels[i].is_over);
        });
}

/* A filter may kill the process for the call. A child tries it first. */
static void filters(void) {
    is_filtered = true;
    IN_CHILD({
        CHECK(read_at(0, -1) == VRANGE_OK && tried == 1);
        CHECK(read_at(0, -1) == VRANGE_OK && tried == 1);
    });
    IN_CHILD({
        child_reads = -ENOSYS;
        CHECK(read_at(0, -1) == VRANGE_PURGED && tried == 1);
        child_reads = 0; /* it is known now */
        CHECK(read_at(0, -1) == VRANGE_PURGED && tried == 1);
    });
    static const int not_now[] = {-EAGAIN, -ENOMEM};
    for (size_t i = 0; i < 2; i++)
        IN_CHILD({
            child_reads = not_now[i];
            CHECK(read_at(0, -1) == VRANGE_PURGED);
        });
    is_filtered = false;
}

static int check_rung(const char *rung) {
    setenv("VRANGE_RUNG", rung, 1);
    arena = open_arena(4 * MIB, &account);
    handle = filled(arena, BYTES, 5);
    memcpy(content, vrange_address(handle), BYTES);
    CHECK(vrange_set_owner(handle, 1) == VRANGE_OK && vrange_release(handle) == VRANGE_OK);
    for (int is_offered = 0; is_offered < 2; is_offered++) {
        if (is_offered) CHECK(vrange_reserve_offer(BYTES) == BYTES);
        IN_CHILD({
            each_step_is_refused();
            changes_meanwhile();
            each_answer_of_the_kernel();
            filters();
            if (strcmp(rung, "sentinel") == 0) sentinels_that_change();
            if (strcmp(rung, "sentinel") == 0 && is_offered) zeros_are_a_loss();
        });
    }
    return 0;
}

/* ---- what a child lets go of ------------------------------------------------------------------- */

#define HELD 4

/* Ranges that were pinned at the fork are away once the child releases them, unless it may not drop its pages. */
static int lets_go(const char *rung) {
    uint64_t held[HELD], other;
    vrange_account *other_account;
    setenv("VRANGE_RUNG", rung, 1);
    arena = open_arena(4 * MIB, &account);
    vrange_arena *const others = open_arena(4 * MIB, &other_account);
    for (size_t i = 0; i < HELD; i++) {
        held[i] = filled(arena, BYTES, i);
        CHECK(vrange_set_owner(held[i], i == 1 ? 0 : (uint32_t)i + 1) == VRANGE_OK);
    }
    CHECK(vrange_set_partial(held[2], 1) == VRANGE_OK);
    other = filled(others, BYTES, 9);
    CHECK(vrange_set_owner(other, 1) == VRANGE_OK);
    IN_CHILD({
        CHECK(vrange_release(other) == VRANGE_OK && vrange_is_away(other));
        discards_fail = true;
        CHECK(vrange_release(held[0]) == VRANGE_OK && !vrange_is_away(held[0]));
        discards_fail = false;
        for (size_t i = 1; i < HELD; i++) CHECK(vrange_release(held[i]) == VRANGE_OK);
        CHECK(!vrange_is_away(held[1]) && !vrange_is_away(held[2]) && vrange_is_away(held[3]));
        for (size_t i = 0; i < HELD - 1; i++) { /* it has its own copy */
            CHECK(vrange_pin_whole(held[i]) == VRANGE_OK && has(held[i], BYTES, i));
            CHECK(vrange_release(held[i]) == VRANGE_OK);
        }
        /* Given up, it is listed, so that whoever has its number learns of it. */
        uint64_t lost[HELD];
        vrange_arena_shed(arena, UINT64_MAX / 2);
        CHECK(vrange_arena_lost(others, lost, HELD) == 0);
        CHECK(vrange_arena_lost(arena, lost, HELD) >= 1);
        vrange_arena_shed(others, BYTES);
        CHECK(vrange_arena_lost(others, lost, HELD) == 1 && lost[0] == other);
    });
    return 0;
}

/* The user says that the call would end the process (VRANGE_PEERS=0). */
static int reads_nothing(void) {
    arena = open_arena(4 * MIB, &account);
    handle = filled(arena, BYTES, 5);
    CHECK(vrange_set_owner(handle, 1) == VRANGE_OK && vrange_release(handle) == VRANGE_OK);
    IN_CHILD(CHECK(vrange_read_away(handle, 0, copy, BYTES) == VRANGE_PURGED));
    return 0;
}

int main(int count, char **arguments) {
    if (count > 1) return reads_nothing();
    IN_CHILD({
        setenv("VRANGE_PEERS", "0", 1);
        execl("/proc/self/exe", arguments[0], "off", NULL);
        CHECK(false);
    });
    check_rungs((const char *const[]){"refault", "sentinel"}, 2, check_rung);
    check_rungs((const char *const[]){"refault", "sentinel"}, 2, lets_go);
    return 0;
}
