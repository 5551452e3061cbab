/* Scratch buffers where the process may map no more memory: a caller gets one that comes back, or none. */
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/scratch.h"
#include "check.h"
#include "os/os.h"

#define TAKEN_MOST 200

static char *taken[TAKEN_MOST];

static void *give_one(void *scratch) {
    os_sleep_ns(5000000);
    scratch_give(scratch);
    return NULL;
}

int main(void) {
    pthread_t giver;
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = RLIM_INFINITY};
    struct rlimit before;
    vrange_account *account;
    vrange_arena *arena = open_arena(MIB, &account);
    alarm(60); /* a wait that never ends */
    CHECK(scratch_prepare() == 0);
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);

    /* One that another thread returns; the thread has its stack before memory ends. */
    int count = 0;
    char *const first = scratch_take();
    CHECK(first);
    CHECK(pthread_create(&giver, NULL, give_one, first) == 0);
    CHECK(setrlimit(RLIMIT_AS, &none) == 0);
    while (count < TAKEN_MOST && (taken[count] = scratch_take())) count++;
    CHECK(count > 0 && count < TAKEN_MOST);
    CHECK(pthread_join(giver, NULL) == 0);

    /* None: a store says that there is no room. */
    const char content[100] = "content";
    const vrange_part part = {.data = content, .bytes = sizeof content};
    uint64_t handle;
    CHECK(vrange_store(arena, &part, 1, 0, 0, &handle) < 0);

    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    while (count) scratch_give(taken[--count]);
    CHECK(vrange_store(arena, &part, 1, 0, 0, &handle) == VRANGE_OK);
    CHECK(vrange_release(handle) == VRANGE_OK);
    puts("scratch buffers: ok");
    return 0;
}
