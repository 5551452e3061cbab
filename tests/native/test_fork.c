/* The child of a fork: purged content is told there too, and its doings do not reach the parent. */
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define BYTES (8 * vrange_page_bytes())

static void in_child(vrange_arena *arena, uint64_t lost, uint64_t kept) {
    CHECK(vrange_pin(lost) == VRANGE_PURGED);
    CHECK(vrange_pin(kept) == VRANGE_OK);
    CHECK(wrong_words(vrange_address(kept), BYTES, 2) == 0);
    write_words(vrange_address(kept), BYTES, 99);
    CHECK(vrange_release(kept) == VRANGE_OK);
    CHECK(vrange_discard(kept) == VRANGE_OK); /* lost after the fork */
    CHECK(vrange_pin(kept) == VRANGE_PURGED);
    uint64_t own;
    CHECK(vrange_allocate(arena, BYTES, &own) == 0);
    write_words(vrange_address(own), BYTES, 4);
    vrange_reserve_info reserve;
    vrange_reserve_read(&reserve);
    CHECK(reserve.running);
    _exit(0);
}

int main(void) {
    vrange_account *account;
    vrange_arena *arena = open_arena(16 * MIB, &account);
    uint64_t lost, kept;
    CHECK(vrange_allocate(arena, BYTES, &lost) == 0);
    CHECK(vrange_allocate(arena, BYTES, &kept) == 0);
    write_words(vrange_address(lost), BYTES, 1);
    write_words(vrange_address(kept), BYTES, 2);
    CHECK(vrange_release(lost) == VRANGE_OK && vrange_release(kept) == VRANGE_OK);
    CHECK(vrange_discard(lost) == VRANGE_OK);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) in_child(arena, lost, kept);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(vrange_pin(lost) == VRANGE_PURGED);
    CHECK(vrange_pin(kept) == VRANGE_OK);
    CHECK(wrong_words(vrange_address(kept), BYTES, 2) == 0);
    return 0;
}
