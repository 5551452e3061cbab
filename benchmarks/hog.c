/* A process that keeps a memory cgroup full: it holds memory, and takes and returns some more again and again.
 *
 *   hog BYTES_HELD BYTES_MORE
 *
 * Prints a line once it has had both. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define REST_US 2000

static void *taken(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    memset(memory, 1, bytes);
    return memory;
}

int main(int count, char **words) {
    if (count != 3) return 2;
    const size_t held = strtoul(words[1], NULL, 10), more = strtoul(words[2], NULL, 10);
    taken(held);
    for (int turn = 0;; turn++) {
        munmap(taken(more), more);
        if (turn == 0) puts("full"), fflush(stdout);
        usleep(REST_US);
    }
}
