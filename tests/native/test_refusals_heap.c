/* The heap: blocks that are none, arenas of no interpreter, and address space that is returned to a program with a
 * limit. */
#define _GNU_SOURCE
#include <sys/resource.h>

#include "heap/heap.h"
#include "heap/pymalloc_arenas.h"
#include "os/os.h"
#include "os/os_main_stack.h"
#include "refusals.h"
#include "reserve/return_space.h"

/* What a limit of address space leaves is enough, or rooms that keep some return it. */
static void test_space_that_is_returned(void) {
    size_t stale;
    uint64_t used, data;
    CHECK(heap_open("space") == 0);
    char *const block = heap_allocate(MIB, &stale);
    CHECK(block);
    heap_free(block);
    return_space_for(MIB);
    CHECK(os_address_space(&used, &data) == 0);
    static const int limits_of[] = {RLIMIT_AS, RLIMIT_DATA};
    for (int i = 0; i < 2; i++) {
        struct rlimit before, limit;
        CHECK(getrlimit(limits_of[i], &before) == 0);
        limit = before;
        limit.rlim_cur = used + 256 * MIB;
        CHECK(setrlimit(limits_of[i], &limit) == 0);
        return_space_for(MIB);
        return_space_for((size_t)1 << 40);
        CHECK(return_space_if_changed() && !return_space_if_changed());
        CHECK(setrlimit(limits_of[i], &before) == 0);
        CHECK(return_space_if_changed());
    }
    CHECK(os_address_space(&used, &data) == 0);
}

/* The linker puts these in place of the core's own. The kernel unmaps the destination before it finds that it can't
 * move what lies in several mappings. */
static bool refuses_move, refuses_commit;

int __real_os_move_pages(void *to, void *from, size_t bytes);
int __wrap_os_move_pages(void *to, void *from, size_t bytes);
int __wrap_os_move_pages(void *to, void *from, size_t bytes) {
    if (!refuses_move) return __real_os_move_pages(to, from, bytes);
    CHECK(munmap(to, bytes) == 0);
    return -EFAULT;
}

int __real_os_commit(void *address, size_t bytes);
int __wrap_os_commit(void *address, size_t bytes);
int __wrap_os_commit(void *address, size_t bytes) {
    return refuses_commit ? -ENOMEM : __real_os_commit(address, bytes);
}

static void test_a_move_that_is_refused(void) {
    size_t stale;
    CHECK(heap_open("moves") == 0);
    char *from = heap_allocate(3 * MIB, &stale), *to = heap_allocate(5 * MIB, &stale);
    CHECK(from && to && heap_move(to, from, 100 * 1024) == -EINVAL); /* is copied in less time */
    memset(from, 7, 3 * MIB);
    memset(to, 8, 5 * MIB);
    CHECK(heap_move(to, from, 3 * MIB) == 0 && to[0] == 7 && to[3 * MIB - 1] == 7 && to[3 * MIB] == 8);
    memset(from, 9, 3 * MIB);
    refuses_move = true;
    CHECK(heap_move(to, from, 3 * MIB) == -EINVAL && from[0] == 9 && from[3 * MIB - 1] == 9);
    memcpy(to, from, 3 * MIB);
    CHECK(to[0] == 9 && to[3 * MIB - 1] == 9 && to[3 * MIB] == 8);
    refuses_commit = true;
    CHECK(heap_move(to, from, 3 * MIB) == -ENOMEM && from[0] == 9 && from[3 * MIB - 1] == 9);
    refuses_move = refuses_commit = false;
    heap_free(from);
}

static void test_arenas_of_interpreters(void) {
    size_t count, others;
    CHECK(!pymalloc_is_arena_of(1, PYMALLOC_ARENA_BYTES));
    pymalloc_forget(PYMALLOC_ARENA_BYTES);
    for (uintptr_t i = 1; i <= 3000; i++) pymalloc_note(i * i * PYMALLOC_ARENA_BYTES, (int64_t)(i % 3));
    pymalloc_note(4 * PYMALLOC_ARENA_BYTES, 2); /* again */
    for (uintptr_t i = 1; i <= 3000; i++)
        CHECK(pymalloc_is_arena_of((int64_t)(i % 3), i * i * PYMALLOC_ARENA_BYTES));
    CHECK(!pymalloc_is_arena_of(2, PYMALLOC_ARENA_BYTES) && !pymalloc_is_arena_of(2, 3 * PYMALLOC_ARENA_BYTES));
    for (uintptr_t i = 1; i <= 3000; i += 2) pymalloc_forget(i * i * PYMALLOC_ARENA_BYTES);
    for (uintptr_t i = 1; i <= 3000; i++)
        CHECK(pymalloc_is_arena_of((int64_t)(i % 3), i * i * PYMALLOC_ARENA_BYTES) == (i % 2 == 0));
    uintptr_t *arenas = pymalloc_arenas_of(0, &count, &others);
    CHECK(arenas && count == 500 && others == 1000);
    free(arenas);
}

static void ends_by_abort(void (*function)(void *), void *argument) {
    fflush(NULL);
    const pid_t child = fork();
    int status;
    if (child == 0) {
        freopen("/dev/null", "w", stderr);
        function(argument);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
          WTERMSIG(status) == SIGABRT);
}

static void free_block(void *block) { heap_free(block); }
static void measure_block(void *block) { heap_block_bytes(block); }
static void resize_block(void *block) { heap_resize(block, 2 * MIB); }

static void test_blocks_that_are_none(void) {
    size_t stale;
    vrange_heap_info info;
    vrange_heap_read(&info);
    CHECK(info.blocks == 0 && vrange_heap_unused() == 0 && vrange_heap_trim() == 0);
    CHECK(heap_open("refusals") == 0 && heap_open("refusals") == 0);
    CHECK(!heap_allocate(1, &stale) && !heap_allocate(SIZE_MAX / 2, &stale));
    char *block = heap_allocate(MIB, &stale);
    CHECK(block && heap_has(block));
    void (*const functions[])(void *) = {free_block, measure_block, resize_block};
    for (int i = 0; i < 3; i++) {
        ends_by_abort(functions[i], block + 4096);
        ends_by_abort(functions[i], block + 1);
    }
    CHECK(!heap_resize(block, SIZE_MAX / 2));
    heap_free(block);
    ends_by_abort(free_block, block); /* twice */
}

int main(void) {
    IN_CHILD(test_a_move_that_is_refused());
    IN_CHILD(test_blocks_that_are_none());
    IN_CHILD(test_space_that_is_returned());
    IN_CHILD(test_arenas_of_interpreters());
    return 0;
}
