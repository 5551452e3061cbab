/* Every system call and every allocation of the core fails once, alone or with later ones of the same
 * function, in each of three ways and on each rung (tests/faults/inject.c).
 *
 * A function of the interface may succeed or be refused. It may not return wrong content, crash, hang, or
 * leave anything behind that does not work afterwards. Each trial is a process of its own.
 *
 * The default is a small sample, each time another one. With FAILURES=n it has n of each operation on each
 * rung. An operation's name as argument chooses it, and FAILURE="n way" the nth call and the way in which it
 * fails. */
#define THE_PROGRAM_IS_OURS
#include "../faults/inject.c"

#include <stdlib.h>
#include <time.h>

#include "heap/heap.h"
#include "index_support.h"
#include "os/os.h"
#include "os/os_thread.h"
#include "os/os_watches.h"
#include "reserve/return_space.h"
#include "stacks/deep_threads.h"
#include "stacks/sigsegv.h"
#include "stacks/stack.h"
#include "stacks/stack_current.h"
#include "stacks/stack_pages.h"
#include "stacks/stack_room.h"
#include "stacks/switch.h"

#define HANGS_SECONDS 20
#define FAILING_WAYS 6u
#define SAMPLE 1 /* of an operation, on one rung */
#define PAGE vrange_page_bytes()
#define BYTES (8 * PAGE)

/* ---- how a call may end ------------------------------------------------------------------------ */

/* 0 is success; negative is an errno. */
static bool did(int result) {
    CHECK(result >= -4095);
    return result >= 0;
}

static bool allocated(vrange_arena *arena, size_t bytes, uint64_t seed, uint64_t *handle) {
    if (!did(vrange_allocate(arena, bytes, handle))) return false;
    write_words(vrange_address(*handle), bytes, seed);
    return true;
}

static void check_content(uint64_t handle, size_t bytes, uint64_t seed) {
    CHECK(wrong_words(vrange_address(handle), bytes, seed) == 0);
}

/* Pins a volatile range and looks whether it has its content, if the library says so. */
static void pin_and_check(uint64_t handle, size_t bytes, uint64_t seed) {
    const int result = vrange_pin(handle);
    CHECK(result <= VRANGE_PURGED);
    if (result == VRANGE_OK) check_content(handle, bytes, seed);
    if (result < 0) return;
    if (result == VRANGE_PURGED) {
        write_words(vrange_address(handle), bytes, seed);
        CHECK(vrange_refilled(handle) == 0);
    }
    CHECK(vrange_release(handle) == VRANGE_OK);
}

static int regenerate(void *to, size_t offset, size_t bytes, void *context) {
    (void)context;
    for (size_t i = 0; i < bytes / 8; i++) ((uint64_t *)to)[i] = word_at(7, offset / 8 + i);
    return 0;
}

/* ---- the world before: made while nothing fails ------------------------------------------------ */

#define RANGES 6

static vrange_account *account;
static vrange_arena *arena;
static uint64_t handles[RANGES];
static vrange_array *array;
static vrange_shared *shared_index;
static int rung;
static pid_t owner;

/* A process that shares the index and keeps a large value. */
static void begin_owner(void) {
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    owner = begin_child();
    if (owner == 0) {
        static uint64_t words[32768];
        const vrange_part part = {words, sizeof words};
        vrange_account *own_account;
        vrange_arena *own = open_arena(4 * MIB, &own_account);
        vrange_shared_key k = {.replaces = 1};
        vrange_shared_found found;
        uint64_t handle;
        CHECK(vrange_shared_join(shared_index) == 0);
        write_words(words, sizeof words, 99);
        k.stamp = vrange_shared_stamp(shared_index);
        digest_of(99, k.digest);
        CHECK(vrange_store(own, &part, 1, 0, 0, &handle) == VRANGE_OK &&
              vrange_set_owner(handle, 1) == VRANGE_OK);
        CHECK(vrange_release(handle) == VRANGE_OK);
        const int result = vrange_shared_put_range(shared_index, &k, handle, sizeof words, "note", 4, &found);
        CHECK(result == 0 || rung < VRANGE_RUNG_REFAULT);
        CHECK(write(ready[1], "1", 1) == 1);
        for (;;) pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    close(ready[1]);
}

static void make_world(bool with_peer) {
    rung = vrange_rung();
    arena = open_arena(16 * MIB, &account);
    for (uint64_t i = 0; i < RANGES; i++) {
        CHECK(allocated(arena, BYTES, i, &handles[i]));
        CHECK(vrange_set_owner(handles[i], (uint32_t)i + 1) == VRANGE_OK);
        CHECK(vrange_release(handles[i]) == VRANGE_OK);
    }
    if (rung == VRANGE_RUNG_REFAULT) {
        vrange_account *of_array = vrange_account_open("array", VRANGE_KIND_ARRAY);
        CHECK(of_array && vrange_array_open(16 * PAGE, 4 * PAGE, regenerate, NULL, of_array, &array) == 0);
    }
    if (!with_peer) return;
    shared_index = open_index("index");
    vrange_shared_found found;
    for (uint64_t key = 0; key < 4; key++) CHECK(set(shared_index, key, 1, &found) == 0);
    begin_owner();
}

/* Everything works now that nothing fails. */
static void check_world(void) {
    vrange_account *later = vrange_account_open("later", VRANGE_KIND_ARENA);
    vrange_arena *another;
    uint64_t handle;
    CHECK(later && vrange_arena_open(4 * MIB, later, &another) == 0);
    CHECK(vrange_allocate(another, BYTES, &handle) == 0);
    write_words(vrange_address(handle), BYTES, 50);
    CHECK(vrange_release(handle) == VRANGE_OK);
    pin_and_check(handle, BYTES, 50);
    CHECK(vrange_discard(handle) == VRANGE_OK);
    CHECK(vrange_pin(handle) == VRANGE_PURGED);
    CHECK(vrange_free(handle) == VRANGE_OK);
    vrange_arena_close(another);
    vrange_account_close(later);
    for (uint64_t i = 0; arena && i < RANGES; i++)
        if (vrange_state(handles[i]) != VRANGE_STATE_FREED) pin_and_check(handles[i], BYTES, i);
    /* The rung fell where a sandbox began to refuse what it needs. The array reports that for ever. */
    if (array && vrange_rung() == VRANGE_RUNG_REFAULT) {
        size_t failed_at;
        CHECK(vrange_array_pin(array, 0, 4, NULL, &failed_at) == 0);
        CHECK(wrong_words(vrange_array_address(array), 16 * PAGE, 7) == 0);
        vrange_array_unpin(array, 0, 4);
    }
}

/* ---- operations -------------------------------------------------------------------------------- */

static void first_arena(void) {
    vrange_account *one = vrange_account_open("first", VRANGE_KIND_ARENA);
    vrange_arena *own;
    uint64_t handle;
    if (!one || !did(vrange_arena_open(4 * MIB, one, &own))) return;
    if (allocated(own, BYTES, 60, &handle)) {
        CHECK(vrange_release(handle) == VRANGE_OK);
        pin_and_check(handle, BYTES, 60);
    }
    vrange_arena_close(own);
    vrange_account_close(one);
}

static void growing_arena(void) {
    vrange_account *one = vrange_account_open("growing", VRANGE_KIND_CACHE);
    vrange_arena *own;
    uint64_t some[40];
    size_t count = 0;
    if (!one || !did(vrange_arena_open_growing((size_t)64 << 30, one, &own))) return;
    for (; count < 40 && allocated(own, count % 5 == 4 ? 2 * MIB : 64 << 10, count, &some[count]); count++)
        CHECK(vrange_release(some[count]) == VRANGE_OK);
    vrange_arena_shed(own, MIB);
    for (size_t i = 0; i < count; i++) pin_and_check(some[i], i % 5 == 4 ? 2 * MIB : 64 << 10, i);
    vrange_free_all(some, count);
    vrange_address_space_return();
    while (vrange_arena_close_some(own, MIB) > 0) continue;
    vrange_account_close(one);
}

static void offered_ranges(void) {
    vrange_reserve_offer(1 << 20);
    for (uint64_t i = 0; i < RANGES; i++) pin_and_check(handles[i], BYTES, i);
    vrange_reserve_offer(1 << 20);
    /* As if memory were short. */
    for (uint64_t i = 0; i < RANGES; i++) CHECK(vrange_discard(handles[i]) <= VRANGE_PURGED);
    for (uint64_t i = 0; i < RANGES; i++) {
        vrange_range_info info;
        vrange_block blocks[4];
        CHECK(did(vrange_range_read(handles[i], &info)));
        const int result = vrange_pin_whole(handles[i]);
        if (result == VRANGE_OK) check_content(handles[i], BYTES, i);
        if (result == VRANGE_OK) CHECK(vrange_release(handles[i]) == VRANGE_OK);
        if (result == VRANGE_PURGED) CHECK(vrange_lost_blocks(handles[i], blocks, 4) >= -4095);
    }
    uint64_t lost[RANGES];
    vrange_arena_lost(arena, lost, RANGES);
}

static void partial_ranges(void) {
    if (vrange_pin(handles[0]) != VRANGE_OK) return;
    did(vrange_set_partial(handles[0], 1));
    CHECK(vrange_release(handles[0]) == VRANGE_OK);
    vrange_reserve_offer(1 << 20);
    CHECK(vrange_discard(handles[0]) <= VRANGE_PURGED);
    vrange_block blocks[4];
    const int result = vrange_pin(handles[0]);
    if (result == VRANGE_OK) check_content(handles[0], BYTES, 0);
    if (result == VRANGE_PURGED) {
        CHECK(vrange_lost_blocks(handles[0], blocks, 4) >= -4095);
        write_words(vrange_address(handles[0]), BYTES, 0);
        CHECK(vrange_refilled(handles[0]) == 0);
    }
    if (result >= 0) CHECK(vrange_release(handles[0]) == VRANGE_OK);
}

static void stores(void) {
    static uint64_t words[3 * 4096];
    write_words(words, sizeof words, 70);
    const vrange_part parts[] = {{words, 5 * 4096}, {words + 5 * 512, sizeof words - 5 * 4096}};
    for (int i = 0; i < 3; i++) {
        uint64_t handle;
        if (!did(vrange_store(arena, parts, 2, 1000, 16, &handle))) continue;
        check_content(handle, sizeof words, 70);
        vrange_used(handle, 2);
        CHECK(vrange_release(handle) == VRANGE_OK);
        pin_and_check(handle, sizeof words, 70);
        CHECK(vrange_free(handle) == VRANGE_OK);
    }
}

static void array_use(void) {
    size_t failed_at;
    if (!array) return;
    did(vrange_array_discard(array));
    if (did(vrange_array_pin(array, 1, 2, NULL, &failed_at))) {
        CHECK(((uint64_t *)vrange_array_address(array))[4 * PAGE / 8] == word_at(7, 4 * PAGE / 8));
        vrange_array_unpin(array, 1, 2);
    }
    unsigned char missing[4];
    if (did(vrange_array_pin(array, 0, 4, missing, &failed_at))) {
        static uint64_t content[8192];
        for (size_t block = 0; block < 4; block++) {
            if (!missing[block]) continue;
            regenerate(content, block * 4 * PAGE, 4 * PAGE, NULL);
            if (!did(vrange_array_put(array, block, content))) failed_at = block;
        }
        vrange_array_unpin(array, 0, 4);
    }
    vrange_reserve_offer(1 << 20);
    vrange_array_resident_bytes(array);
}

static void array_touch(void) {
    if (!array) return;
    did(vrange_array_discard(array));
    CHECK(wrong_words(vrange_array_address(array), 16 * PAGE, 7) == 0);
}

static void another_array(void) {
    vrange_account *one = vrange_account_open("another", VRANGE_KIND_ARRAY);
    vrange_array *other;
    size_t failed_at;
    if (!one) return;
    if (did(vrange_array_open(4 * MIB, 2 * MIB, vrange_regenerate_zero, NULL, one, &other))) {
        if (did(vrange_array_pin(other, 0, 2, NULL, &failed_at))) vrange_array_unpin(other, 0, 2);
        vrange_array_close(other);
    }
    vrange_account_close(one);
}

static void array_of_file(void) {
    struct stat found;
    vrange_account *one = vrange_account_open("of file", VRANGE_KIND_ARRAY);
    vrange_array *other;
    size_t failed_at;
    const int descriptor = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 || fstat(descriptor, &found) < 0 || !one) return;
    vrange_file file = {descriptor, found.st_dev, found.st_ino, "/proc/self/exe", 0};
    if (did(vrange_array_open(4 * PAGE, PAGE, vrange_regenerate_file, &file, one, &other))) {
        if (did(vrange_array_pin(other, 0, 4, NULL, &failed_at))) {
            CHECK(memcmp(vrange_array_address(other), "\177ELF", 4) == 0);
            vrange_array_unpin(other, 0, 4);
        }
        vrange_array_close(other);
    }
    vrange_account_close(one);
}

static void heap(void) {
    static const size_t sizes[] = {64 << 10, 1 << 20, 9 << 20, 40 << 20, 3 << 20};
    uint64_t *blocks[5];
    if (!did(heap_open("heap"))) return;
    for (uint64_t i = 0; i < 5; i++) {
        size_t stale;
        blocks[i] = heap_allocate(sizes[i], &stale);
        if (!blocks[i]) continue;
        heap_clear(blocks[i], stale);
        CHECK(blocks[i][0] == 0 && blocks[i][sizes[i] / 8 - 1] == 0);
        blocks[i][0] = blocks[i][sizes[i] / 8 - 1] = i + 1;
    }
    if (blocks[1] && heap_resize(blocks[1], 2 << 20)) blocks[1][(2 << 20) / 8 - 1] = 2;
    if (blocks[2] && heap_resize(blocks[2], 4 << 20)) CHECK(blocks[2][0] == 3);
    if (blocks[4] && blocks[3] && heap_move(blocks[3], blocks[4], 3 << 20)) CHECK(blocks[3][0] == 5);
    else if (blocks[4]) CHECK(blocks[4][0] == 5 && blocks[4][(3 << 20) / 8 - 1] == 5);
    for (int i = 0; i < 5; i++) {
        if (blocks[i]) heap_free(blocks[i]);
        if (i == 2) vrange_heap_trim();
    }
    vrange_heap_info info;
    vrange_heap_read(&info);
    vrange_heap_unused();
    vrange_heap_return_idle(1);
    vrange_heap_trim();
    vrange_heap_return_idle(0);
}

static void rest(unsigned milliseconds) {
    const struct timespec time = {0, milliseconds * 1000000l};
    nanosleep(&time, NULL);
}

static void reserve(void) {
    if (!did(vrange_reserve_start(256 << 10, 1000000, 1))) return;
    rest(8);
    for (uint64_t i = 0; i < RANGES; i++) pin_and_check(handles[i], BYTES, i);
    if (did(vrange_room_take(MIB))) vrange_room_give(MIB);
    rest(4);
    vrange_reserve_stop();
}

static void limits(void) {
    static vrange_cgroups groups;
    vrange_limit limit;
    vrange_set_limit(UINT64_C(8) << 30, 0);
    if (did(vrange_cgroups_read("/proc/self", &groups))) vrange_limit_of(&groups, &limit);
    if (did(vrange_room_take(MIB))) vrange_room_give(MIB);
    rest(3);
    vrange_set_limit(0, 0);
    vrange_address_space space;
    vrange_address_space_read(&space);
}

static void near_limit(void) {
    uint64_t bytes = 0;
    if ((bytes = vrange_resident_bytes()) == 0) return;
    vrange_set_limit(bytes + 8 * MIB, 0);
    uint64_t some[24];
    size_t count = 0;
    for (; count < 24 && allocated(arena, MIB / 2, count, &some[count]); count++)
        CHECK(vrange_release(some[count]) == VRANGE_OK);
    rest(6);
    for (size_t i = 0; i < count; i++) pin_and_check(some[i], MIB / 2, i);
    if (did(vrange_room_take(6 * MIB))) vrange_room_give(6 * MIB);
    vrange_free_all(some, count);
    vrange_set_limit(0, 0);
}

static void pressure(void) {
    static vrange_cgroups found;
    const vrange_pressure_settings settings = {1000000, 1000000, .7, .9, .05, .2};
    if (!did(vrange_pressure_find("/proc/self", &found)) || !did(vrange_pressure_start(&settings))) return;
    vrange_pressure_info info;
    vrange_pressure_wait(0, 3000000);
    vrange_pressure_read(&info);
    vrange_pressure_poke();
    vrange_pressure_stop();
}

/* The child may end with a message if it can't tell lost content from zeros. */
static void fork_reads(void) {
    fflush(NULL);
    const pid_t child = fork();
    if (child < 0) return;
    if (child == 0) {
        static uint64_t copy[65536];
        for (uint64_t i = 0; i < RANGES; i++) {
            if (vrange_is_away(handles[i]) != 1) {
                pin_and_check(handles[i], BYTES, i);
            } else if (vrange_read_away(handles[i], 0, copy, BYTES) == VRANGE_OK) {
                CHECK(wrong_words(copy, BYTES, i) == 0);
            }
        }
        uint64_t handle;
        if (allocated(arena, BYTES, 80, &handle)) CHECK(vrange_release(handle) == VRANGE_OK);
        if (array) {
            size_t failed_at;
            if (did(vrange_array_pin(array, 0, 4, NULL, &failed_at))) {
                CHECK(wrong_words(vrange_array_address(array), 16 * PAGE, 7) == 0);
                vrange_array_unpin(array, 0, 4);
            }
        }
        inject_disarm();
        _exit(0);
    }
    int status, got;
    while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) continue;
    if (got == child)
        CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
              (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT));
}

static void shared_first(void) {
    vrange_shared *own;
    char there[160];
    uint64_t value[VRANGE_PAYLOAD_MOST / 8];
    snprintf(there, sizeof there, "%s/first-%d", directory, getpid());
    if (!did(vrange_shared_open(there, BUCKETS, BLOCKS, &own))) return;
    if (did(vrange_shared_join(own))) {
        vrange_shared_found found;
        vrange_shared_key k = {.replaces = 1, .stamp = vrange_shared_stamp(own)};
        digest_of(5, k.digest);
        const bool is_put = did(vrange_shared_put(own, &k, value, fill(value, 5, 2), &found));
        const int64_t turn = find(own, 5, &found);
        CHECK(turn == -1 || (is_put && turn == 2));
        CHECK(vrange_shared_is_at(own, there) >= 0);
        vrange_shared_members(own);
        vrange_shared_clear(own);
        CHECK(find(own, 5, &found) == -1);
        vrange_shared_leave(own);
    }
    unlink(there);
}

static void shared_use(void) {
    vrange_shared_found found;
    static uint64_t words[32768];
    char payload[VRANGE_PAYLOAD_MOST];
    unsigned char digest[16];
    int removed;
    for (uint64_t key = 0; key < 4; key++) CHECK(find(shared_index, key, &found) <= 1);
    digest_of(99, digest);
    if (vrange_shared_find(shared_index, digest, payload, sizeof payload, &found) == VRANGE_OK &&
        vrange_shared_read(shared_index, &found, NULL, 0, words) == VRANGE_OK)
        CHECK(wrong_words(words, sizeof words, 99) == 0);
    did(set(shared_index, 20, 3, &found));
    const int64_t turn = find(shared_index, 20, &found);
    CHECK(turn == 3 || turn == -1);
    change(shared_index, 1, &removed);
    CHECK(find(shared_index, 1, &found) == -1);
    vrange_shared_flight flight;
    digest_of(30, digest);
    if (vrange_shared_lead(shared_index, digest, &flight) == VRANGE_OK)
        vrange_shared_land(shared_index, &flight);
    vrange_shared_members(shared_index);
}

static void on_stack(void *argument) {
    char bytes[32 << 10];
    memset(bytes, 1, sizeof bytes);
    *(int *)argument = bytes[100];
}

static void stacks(void) {
    stack *s;
    int ran = 0;
    if (!did(sigsegv_arm_thread())) return;
    for (int i = 0; i < 4; i++) {
        if (!did(stack_take(i % 2 ? 64 * MIB : 16 * MIB, i / 2, &s))) continue;
        stack_room_begin(s);
        stack *const before = stack_current();
        stack_set_current(s);
        switch_call(s->top, on_stack, &ran);
        stack_set_current(before);
        stack_room_end(s);
        CHECK(ran == 1);
        stack_give(s, stack_used(s), i % 3);
    }
    vrange_stack_info info[4];
    vrange_stacks_read(info, 4);
    vrange_stacks_trim_pooled();
    vrange_stack_trim(VRANGE_RELEASE_NOW);
}

static _Atomic int stage;

static void *idle_thread(void *unused) {
    char bytes[256 << 10];
    memset(bytes, 1, sizeof bytes);
    stack *s;
    did(vrange_thread_register());
    did(deep_threads_begin(MIB, &s));
    atomic_store(&stage, 1);
    while (atomic_load(&stage) != 2) rest(1);
    vrange_stack_trim(VRANGE_RELEASE_VOLATILE);
    return unused;
}

static void idle_threads(void) {
    pthread_t thread;
    int count;
    vrange_thread_info info[4];
    atomic_store(&stage, 0);
    const bool begun = pthread_create(&thread, NULL, idle_thread, NULL) == 0;
    while (begun && atomic_load(&stage) == 0) rest(1);
    vrange_threads_read(info, 4);
    CHECK(vrange_stacks_trim_idle(VRANGE_RELEASE_NOW, 20000000, &count) >= -4095);
    deep_threads_watch();
    deep_threads_fit_limits();
    atomic_store(&stage, 2);
    if (begun) pthread_join(thread, NULL);
    vrange_stacks_trim();
}

static void figures(void) {
    static char text[4096];
    static vrange_account_counters counters[32];
    char where[4096];
    uint64_t start, bottom;
    vrange_accounts_read(counters, 32);
    vrange_segment_path();
    vrange_segment_refusal();
    vrange_segment_keep(1);
    vrange_segment_keep(0);
    for (size_t i = 0; i <= VRANGE_SEGMENT_PLACES; i++) vrange_segment_directory(i, where, sizeof where);
    if (vrange_segment_path()) vrange_segment_is_in_use(vrange_segment_path());
    vrange_process_runs((uint64_t)getppid(), &start, &bottom);
    vrange_process_runs(1, &start, &bottom);
    vrange_resident_bytes();
    vrange_children_can_read();
    vrange_glibc_report(text, sizeof text);
    for (int i = 0; i < VRANGE_ALLOCATORS; i++) {
        if (!vrange_allocator_name(i)) continue;
        vrange_allocator_unused(i);
        vrange_allocator_release(i);
    }
    for (int i = VRANGE_RUNG_EAGER; i <= VRANGE_RUNG_REFAULT; i++) vrange_rung_refusal(i);
}

static void answer(void) {}

static void requests(void) {
    char where[4096];
    vrange_requests_answer(answer);
    if (did(vrange_request_path(where, sizeof where))) {
        const int file = open(where, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (file >= 0) close(file);
        vrange_requests_look();
        rest(2);
        vrange_requests_look();
        unlink(where);
    }
    did(vrange_requests_end(50000000));
    vrange_requests_answer(NULL);
}

static void descriptors(void) {
    vrange_descriptor held;
    const int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    const int result = vrange_descriptor_note(file, &held);
    if (!did(result)) return;
    CHECK(vrange_descriptor_is_ours(&held) >= 0);
    vrange_descriptor_close(&held);
}

/* The kernel takes one page of a partial range. */
static void partial_loss(void) {
    if (vrange_pin(handles[1]) != VRANGE_OK) return;
    did(vrange_set_partial(handles[1], 1));
    char *const address = vrange_address(handles[1]);
    CHECK(vrange_release(handles[1]) == VRANGE_OK);
    for (int round = 0; round < 2; round++) {
        vrange_reserve_offer(1 << 20);
        madvise(address + (size_t)round * PAGE, PAGE, MADV_PAGEOUT);
        vrange_block blocks[4];
        const int result = vrange_pin(handles[1]);
        if (result == VRANGE_OK) check_content(handles[1], BYTES, 1);
        if (result == VRANGE_PURGED) {
            const int64_t count = vrange_lost_blocks(handles[1], blocks, 4);
            CHECK(count <= 4);
            /* Blocks that were not lost have their content. */
            uint64_t *const words = (uint64_t *)address;
            for (size_t i = 0; count >= 0 && i < BYTES / 8; i++) {
                bool is_lost = false;
                for (int64_t b = 0; b < count; b++)
                    is_lost |= i * 8 >= blocks[b].offset && i * 8 < blocks[b].offset + blocks[b].bytes;
                CHECK(is_lost || words[i] == word_at(1, i));
            }
            write_words(words, BYTES, 1);
            CHECK(vrange_refilled(handles[1]) == 0);
        }
        if (result < 0) return;
        CHECK(vrange_release(handles[1]) == VRANGE_OK);
        if (vrange_pin_whole(handles[1]) == VRANGE_OK) {
            check_content(handles[1], BYTES, 1);
            CHECK(vrange_release(handles[1]) == VRANGE_OK);
        }
    }
}

/* One page of an ordinary range: all of it is lost. */
static void whole_loss(void) {
    if (vrange_pin(handles[2]) != VRANGE_OK) return;
    char *const address = vrange_address(handles[2]);
    CHECK(vrange_release(handles[2]) == VRANGE_OK);
    vrange_reserve_offer(1 << 20);
    madvise(address + 2 * PAGE, PAGE, MADV_PAGEOUT);
    const int result = vrange_pin_whole(handles[2]);
    if (result == VRANGE_OK) {
        check_content(handles[2], BYTES, 2);
        CHECK(vrange_release(handles[2]) == VRANGE_OK);
    } else if (result == VRANGE_PURGED) {
        CHECK(vrange_pin_whole(handles[2]) != VRANGE_OK);
    }
    uint64_t lost[RANGES];
    vrange_arena_lost(arena, lost, RANGES);
    pin_and_check(handles[2], BYTES, 2);
}

/* A limit whose judge does not count what is offered. */
static void spared_limit(void) {
    const uint64_t bytes = vrange_resident_bytes();
    if (bytes == 0) return;
    vrange_set_limit(bytes + 24 * MIB, bytes + 40 * MIB);
    if (!did(vrange_reserve_start(MIB, 1000000, 0))) return;
    uint64_t some[12];
    size_t count = 0;
    for (; count < 12 && allocated(arena, MIB, count, &some[count]); count++) {
        CHECK(vrange_set_owner(some[count], 100) == VRANGE_OK);
        CHECK(vrange_release(some[count]) == VRANGE_OK);
    }
    if (did(vrange_room_take(20 * MIB))) vrange_room_give(20 * MIB);
    rest(5);
    for (size_t i = 0; i < count; i++) pin_and_check(some[i], MIB, i);
    vrange_free_all(some, count);
    vrange_set_limit(0, 0);
    vrange_reserve_stop();
}

/* Ranges that compete with each other alone, and keep the newest. */
static void own_aging(void) {
    vrange_account *one = vrange_account_open("aging", VRANGE_KIND_CACHE);
    vrange_arena *own;
    uint64_t some[30];
    uint32_t ranges;
    uint64_t pages;
    size_t count = 0;
    if (!one || !did(vrange_arena_open_growing((size_t)1 << 30, one, &own))) return;
    vrange_arena_age_alone(own);
    vrange_arena_set_aging(own, VRANGE_PACE_FAST, 1);
    for (; count < 30 && allocated(own, PAGE << (count % 4), count, &some[count]); count++) {
        CHECK(vrange_release(some[count]) == VRANGE_OK);
        vrange_used(some[count], UINT32_MAX);
        for (int i = 0; i < 40; i++) pin_and_check(some[count / 2], PAGE << (count / 2 % 4), count / 2);
    }
    vrange_arena_epoch(own);
    vrange_arena_competing(own, &ranges, &pages);
    vrange_arena_can_hold(own, (size_t)1 << 29);
    vrange_arena_can_hold(own, (size_t)1 << 40);
    vrange_reserve_offer(64 * PAGE);
    vrange_arena_shed(own, 16 * PAGE);
    for (size_t i = 0; i < count; i++) CHECK(vrange_uses(some[i]) < UINT32_MAX);
    vrange_arena_close(own);
    vrange_account_close(one);
}

/* While a child shares the pages, the parent can't free what it offers. */
static void shared_with_child(void) {
    fflush(NULL);
    int ends[2];
    char byte;
    if (pipe(ends) < 0) return;
    const pid_t child = fork();
    if (child == 0) {
        inject_disarm();
        close(ends[1]);
        if (read(ends[0], &byte, 1) < 0) _exit(1);
        _exit(0);
    }
    vrange_reserve_offer(1 << 20);
    vrange_arena_shed(arena, 1 << 20);
    for (uint64_t i = 0; i < RANGES; i++) pin_and_check(handles[i], BYTES, i);
    vrange_reserve_offer(1 << 20);
    close(ends[0]);
    close(ends[1]);
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR) continue;
}

/* A child checks what it reads. It may also refuse to go on, and say so (process/fork.c). */
static void wait_for(pid_t child) {
    int status = 0, got;
    while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) continue;
    if (child > 0 && got == child)
        CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
              (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT));
}

/* A child that is short of memory lets go of what it inherited. */
static void child_lets_go(void) {
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        static uint64_t copy[65536];
        vrange_reserve_offer(1 << 20);
        for (uint64_t i = 0; i < RANGES; i++) {
            if (i % 2) pin_and_check(handles[i], BYTES, i);
            else if (vrange_read_away(handles[i], 8, copy, BYTES - 8) == VRANGE_OK)
                CHECK(copy[0] == word_at(i, 1));
        }
        vrange_arena_shed(arena, UINT64_MAX / 2);
        vrange_reserve_offer(1 << 20);
        for (uint64_t i = 0; i < RANGES; i++) {
            const int result = vrange_read_away(handles[i], 0, copy, BYTES);
            if (result == VRANGE_OK) CHECK(wrong_words(copy, BYTES, i) == 0);
        }
        uint64_t lost[RANGES];
        vrange_arena_lost(arena, lost, RANGES);
        inject_disarm();
        _exit(0);
    }
    wait_for(child);
}

/* A fork while blocks are pinned, and with an array that can't be refilled. */
static void fork_with_arrays(void) {
    vrange_account *one = vrange_account_open("by hand", VRANGE_KIND_ARRAY);
    vrange_array *other = NULL;
    size_t failed_at;
    static uint64_t content[2048];
    unsigned char missing[4];
    if (!array || !one) return;
    const bool is_open = did(vrange_array_open(16 * PAGE, 4 * PAGE, NULL, NULL, one, &other));
    const bool is_held = is_open && did(vrange_array_pin(other, 0, 2, missing, &failed_at));
    const bool is_put =
        is_held && did(vrange_array_put(other, 0, content)) && did(vrange_array_put(other, 1, content));
    const bool is_pinned = did(vrange_array_pin(array, 0, 3, NULL, &failed_at));
    const pid_t child = fork();
    if (child == 0) {
        if (is_put) CHECK(wrong_words(vrange_array_address(other), 0, 0) == 0);
        if (is_pinned) CHECK(wrong_words(vrange_array_address(array), 12 * PAGE, 7) == 0);
        inject_disarm();
        _exit(0);
    }
    wait_for(child);
    if (is_pinned) vrange_array_unpin(array, 0, 3);
    if (is_held) vrange_array_unpin(other, 0, 2);
    if (is_open) {
        CHECK(vrange_array_pin(other, 3, 1, NULL, &failed_at) < 0); /* nothing fills it */
        vrange_array_close(other);
    }
    vrange_account_close(one);
}

/* As deep as the bytes say. */
static __attribute__((noinline)) size_t descend(size_t bytes) {
    volatile char frame[8 << 10];
    frame[0] = (char)bytes;
    frame[sizeof frame - 1] = 1;
    return bytes < sizeof frame ? (size_t)frame[sizeof frame - 1]
                                : descend(bytes - sizeof frame) + (size_t)frame[sizeof frame - 1];
}

static void deep_on_stack(void *argument) { *(size_t *)argument = descend(6 * MIB); }

static void *deep_thread(void *unused) {
    stack *s;
    did(vrange_thread_register());
    const bool is_deep = did(deep_threads_begin(MIB, &s));
    if (is_deep) CHECK(descend(24 * MIB) > 0);
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    deep_threads_fit_limits();
    return unused;
}

/* Stacks that grow step by step where they are touched. */
static void deep_stacks(void) {
    stack *s;
    size_t depth = 0;
    pthread_t thread;
    pthread_attr_t attributes;
    if (!did(sigsegv_arm_thread())) return;
    for (int i = 0; i < 2; i++) {
        if (!did(stack_take(32 * MIB, i == 0, &s))) continue;
        stack_room_begin(s);
        stack *const before = stack_current();
        stack_set_current(s);
        switch_call(s->top, deep_on_stack, &depth);
        stack_set_current(before);
        stack_room_end(s);
        CHECK(depth > 0);
        vrange_stack_totals totals;
        vrange_stack_totals_read(&totals);
        stack_give(s, stack_used(s), VRANGE_RELEASE_VOLATILE);
    }
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * MIB);
    if (pthread_create(&thread, &attributes, deep_thread, NULL) == 0) pthread_join(thread, NULL);
}

static void *waiting_deep_thread(void *unused) {
    stack *s;
    if (did(deep_threads_begin(MIB, &s))) CHECK(descend(12 * MIB) > 0);
    atomic_store(&stage, 1);
    while (atomic_load(&stage) != 2) rest(1);
    return unused;
}

/* Main's own stack, beside a thread whose stack is deep too, in a fork, and while address space is limited. */
static void deep_main(void) {
    const struct rlimit deep = {96 * MIB, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
    stack *s;
    pthread_t thread;
    pthread_attr_t attributes;
    uint64_t bytes, data;
    int count, status;
    if (setrlimit(RLIMIT_STACK, &deep) < 0) return;
    if (!did(deep_threads_begin_main(96 * MIB, VRANGE_STACK_USUAL_BYTES, &s))) return;
    deep_threads_watch();
    CHECK(descend(40 * MIB) > 0);
    vrange_stack_trim(VRANGE_RELEASE_NOW);
    atomic_store(&stage, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * MIB);
    const bool begun = pthread_create(&thread, &attributes, waiting_deep_thread, NULL) == 0;
    while (begun && atomic_load(&stage) == 0) rest(1);
    const pid_t child = fork();
    if (child == 0) {
        CHECK(descend(20 * MIB) > 0);
        inject_disarm();
        _exit(0);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    vrange_stacks_trim_idle(VRANGE_RELEASE_NOW, 20000000, &count);
    if (os_address_space(&bytes, &data) == 0) {
        const struct rlimit little = {bytes + 24 * MIB, RLIM_INFINITY};
        if (setrlimit(RLIMIT_AS, &little) == 0) deep_threads_fit_limits();
        rest(4);
    }
    atomic_store(&stage, 2);
    if (begun) pthread_join(thread, NULL);
    vrange_stacks_trim();
    deep_threads_fit_limits();
    setrlimit(RLIMIT_AS, &none);
}

static os_watches watched;

static void *watching_thread(void *unused) {
    char where[200];
    snprintf(where, sizeof where, "%s/watched", directory);
    if (os_watches_begin(&watched) < 0) {
        atomic_store(&stage, 2);
        return unused;
    }
    const bool is_told = did(os_watch_written(&watched, where));
    did(os_watch_v1(&watched, "/sys/fs/cgroup/memory", "memory.usage_in_bytes", "1099511627776"));
    did(os_watch_v1(&watched, "/nowhere", "memory.usage_in_bytes", "1"));
    did(os_watch_notified(&watched, directory, "watched"));
    did(os_watch_written(&watched, "/nowhere"));
    atomic_store(&stage, 1);
    int result = 1;
    while (is_told && result > 0) result = os_watches_wait(&watched);
    CHECK(result >= -4095);
    atomic_store(&stage, 2);
    return unused;
}

/* A thread that waits for what the kernel reports. */
static void watches(void) {
    pthread_t thread;
    char where[200];
    snprintf(where, sizeof where, "%s/watched", directory);
    const int file = open(where, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) return;
    atomic_store(&stage, 0);
    if (os_thread_start(&thread, watching_thread, NULL) != 0) return;
    while (atomic_load(&stage) == 0) rest(1);
    if (write(file, "changed", 7) == 7) rest(1);
    for (int i = 0; i < 400 && atomic_load(&stage) != 2; i++) {
        os_watches_end(thread);
        rest(1);
    }
    CHECK(atomic_load(&stage) == 2);
    pthread_join(thread, NULL);
    close(file);
}

/* What a child reads of its parent's, in parts of any size, while the parent offers and loses it. */
static void child_reads_parts(void) {
    static const size_t parts[][2] = {{0, 8}, {4, 8}, {4092, 8}, {4096, 4096}, {4100, 8000}, {3, 32765}, {32768, 1}, {0, 65536}};
    int go[2], gone[2];
    char byte;
    vrange_reserve_offer(3 * BYTES);
    if (pipe(go) < 0) return;
    if (pipe(gone) < 0) return;
    const pid_t child = fork();
    if (child == 0) {
        static unsigned char copy[65536], wanted[32768];
        close(go[1]);
        for (int round = 0; round < 2; round++) {
            for (uint64_t i = 0; i < RANGES; i++) {
                write_words((uint64_t *)wanted, BYTES, i);
                for (size_t part = 0; part < sizeof parts / sizeof *parts; part++) {
                    const size_t from = parts[part][0], bytes = parts[part][1];
                    if (vrange_read_away(handles[i], from, copy, bytes) != VRANGE_OK) continue;
                    CHECK(from + bytes <= BYTES && memcmp(copy, wanted + from, bytes) == 0);
                }
            }
            if (round == 0 && (write(gone[1], "1", 1) != 1 || read(go[0], &byte, 1) < 0)) break;
        }
        inject_disarm();
        _exit(0);
    }
    close(go[0]);
    close(gone[1]);
    if (child > 0 && read(gone[0], &byte, 1) == 1) {
        vrange_reserve_offer(RANGES * BYTES);
        for (uint64_t i = 0; i < RANGES; i++) {
            if (i % 3 == 0) pin_and_check(handles[i], BYTES, i);
            if (i % 3 == 1) CHECK(vrange_discard(handles[i]) <= VRANGE_PURGED);
        }
        if (write(go[1], "1", 1) != 1) kill(child, SIGKILL);
    }
    close(go[1]);
    close(gone[0]);
    int status = 0, got;
    while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) continue;
    if (child > 0 && got == child) CHECK(status == 0 || WIFSIGNALED(status));
}

/* As malloc opens it: nothing is counted until there is a name. */
static void heap_without_name(void) {
    size_t stale;
    if (!did(heap_open(NULL))) return;
    char *const block = heap_allocate(5 * MIB, &stale), *const more = heap_allocate(MIB, &stale);
    if (block) heap_free(block);
    did(heap_open("named"));
    if (more) heap_free(more);
    heap_use_huge_pages(true);
    char *const huge = heap_allocate(16 * MIB, &stale);
    if (huge) memset(huge, 1, 16 * MIB);
    if (huge) heap_free(huge);
    vrange_heap_trim();
    return_space_for(64 * MIB);
    return_space_if_changed();
}

/* More ranges than lie in a part of the table, of all sizes, freed in another order. */
static void many_ranges(void) {
    vrange_account *one = vrange_account_open("many", VRANGE_KIND_CACHE);
    vrange_arena *own;
    static uint64_t some[3000];
    size_t count = 0;
    if (!one || !did(vrange_arena_open_growing((size_t)16 << 30, one, &own))) return;
    for (; count < 3000 && did(vrange_allocate(own, PAGE << (count % 3), &some[count])); count++)
        CHECK(vrange_release(some[count]) == VRANGE_OK);
    vrange_reserve_offer(100 * PAGE);
    vrange_arena_shed(own, 100 * PAGE);
    for (size_t i = 0; i < count; i += 2) CHECK(vrange_free(some[i]) == VRANGE_OK);
    vrange_address_space_return();
    uint64_t large;
    if (did(vrange_allocate(own, 200 * MIB, &large))) CHECK(vrange_free(large) == VRANGE_OK);
    if (did(vrange_allocate(own, 300 * MIB, &large))) CHECK(vrange_release(large) == VRANGE_OK);
    vrange_arena_close(own);
    vrange_account_close(one);
}

static const struct {
    const char *name;
    void (*run)(void);
    bool is_first, has_peer;
} operations[] = {
    {"first arena", first_arena, true, false},
    {"growing arena", growing_arena, false, false},
    {"offered ranges", offered_ranges, false, false},
    {"partial ranges", partial_ranges, false, false},
    {"stores", stores, false, false},
    {"array use", array_use, false, false},
    {"array touch", array_touch, false, false},
    {"another array", another_array, false, false},
    {"array of file", array_of_file, false, false},
    {"first heap", heap, true, false},
    {"heap", heap, false, false},
    {"reserve", reserve, false, false},
    {"limits", limits, false, false},
    {"near limit", near_limit, false, false},
    {"pressure", pressure, false, false},
    {"fork reads", fork_reads, false, false},
    {"first shared", shared_first, true, false},
    {"shared use", shared_use, false, true},
    {"first stacks", stacks, true, false},
    {"stacks", stacks, false, false},
    {"idle threads", idle_threads, false, false},
    {"figures", figures, false, false},
    {"requests", requests, false, false},
    {"descriptors", descriptors, false, false},
    {"partial loss", partial_loss, false, false},
    {"whole loss", whole_loss, false, false},
    {"spared limit", spared_limit, false, false},
    {"own aging", own_aging, false, false},
    {"shared with child", shared_with_child, false, false},
    {"child lets go", child_lets_go, false, false},
    {"fork with arrays", fork_with_arrays, false, false},
    {"deep stacks", deep_stacks, false, false},
    {"deep main", deep_main, false, false},
    {"watches", watches, true, false},
    {"child reads parts", child_reads_parts, false, false},
    {"heap without name", heap_without_name, true, false},
    {"many ranges", many_ranges, false, false},
};

/* ---- trials ------------------------------------------------------------------------------------ */

static long attempt(size_t which, long nth, unsigned way) {
    alarm(HANGS_SECONDS);
    if (!operations[which].is_first) make_world(operations[which].has_peer);
    inject_find();
    inject_arm(nth, way % 2, way / 2);
    operations[which].run();
    const long calls = inject_disarm();
    int error;
    const char *const name = inject_failed(&error);
    if (name) fprintf(stderr, "%s failed: %s\n", name, strerror(error));
    check_world();
    if (owner) end_child(owner);
    return calls;
}

/* A touch can't be refused in words. Where what knows the userfaultfd is refused for good, arrays can't be
 * read any more (arrays_bar). */
static bool may_end(size_t which, unsigned way, int status) {
    if (operations[which].run != array_touch || !WIFSIGNALED(status)) return false;
    return WTERMSIG(status) == SIGBUS || (way % 2 && WTERMSIG(status) == SIGSEGV);
}

static unsigned wrong;

/* What trials write is shown only if they go wrong: they report that the rung fell, for example. */
static char said[160];

static void begin_saying(void) {
    const int file = open(said, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    CHECK(file >= 0 && dup2(file, STDERR_FILENO) == STDERR_FILENO);
    close(file);
}

static void show_said(void) {
    char text[2048];
    const int file = open(said, O_RDONLY | O_CLOEXEC);
    const ssize_t length = file < 0 ? 0 : read(file, text, sizeof text);
    if (length > 0) fwrite(text, 1, (size_t)length, stderr);
    if (file >= 0) close(file);
}

static long in_child(size_t which, const char *on, long nth, unsigned way) {
    int ends[2], status;
    long calls = 0;
    CHECK(pipe(ends) == 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        test_process = getpid();
        setenv("VRANGE_RUNG", on, 1);
        begin_saying();
        calls = attempt(which, nth, way);
        CHECK(write(ends[1], &calls, sizeof calls) == sizeof calls);
        _exit(0);
    }
    close(ends[1]);
    const bool is_done = read(ends[0], &calls, sizeof calls) == sizeof calls;
    close(ends[0]);
    CHECK(waitpid(child, &status, 0) == child);
    if ((!is_done || status) && !may_end(which, way, status)) {
        show_said();
        fprintf(stderr, "%s on %s, call %ld, way %u: status %#x\n", operations[which].name, on, nth, way,
                (unsigned)status);
        wrong++;
    }
    return calls;
}

int main(int count, char **arguments) {
    static const char *const rungs[] = {"refault", "sentinel", "eager"};
    const char *const asked = getenv("FAILURES");
    const long sample = asked ? atol(asked) : SAMPLE;
    uint64_t random = (uint64_t)time(NULL) << 16 | (uint64_t)getpid();
    long tried = 0;
    make_directory();
    const char *const place = getenv("FAILURE"); /* this one alone: its number, and in which way */
    snprintf(said, sizeof said, "%s/said", directory);
    for (size_t which = 0; which < sizeof operations / sizeof *operations; which++) {
        if (count == 2 && strcmp(arguments[1], operations[which].name) != 0) continue;
        const size_t chosen = (size_t)((random >> 40) + which) % 3;
        for (size_t on = 0; on < 3; on++) {
            if (!asked && !place && on != chosen) continue;
            if (place) {
                char *way;
                const long nth = strtol(place, &way, 10);
                in_child(which, rungs[on], nth, (unsigned)strtoul(way, NULL, 10));
                continue;
            }
            const long calls = in_child(which, rungs[on], 1l << 40, 0);
            for (long i = 0; calls > 0 && i < sample; i++, tried++) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                in_child(which, rungs[on], (long)((random >> 33) % (uint64_t)calls) + 1,
                         (unsigned)(random >> 13) % FAILING_WAYS);
            }
        }
    }
    remove_directory();
    if (wrong || asked) fprintf(stderr, "%u of %ld trials went wrong\n", wrong, tried);
    return wrong > 0;
}
