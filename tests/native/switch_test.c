/* switch_call by itself, without Python: arguments and stack arrive, registers come back, nesting and
 * the unwinder's way through. Built for each architecture, and with ucontext; 0: all well. */
#define _GNU_SOURCE
#include "stacks/switch.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unwind.h>

#define STACK_BYTES (1u << 20)

#define CHECK(what)                                                    \
    do {                                                               \
        if (!(what)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
            exit(1);                                                   \
        }                                                              \
    } while (0)

static char *new_stack(void) {
    char *low = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(low != MAP_FAILED);
    return low;
}

static int is_on(const char *low, const void *address) {
    return (const char *)address >= low && (const char *)address < low + STACK_BYTES;
}

typedef struct {
    char *stack, *inner;
    int calls, frames_seen, reached_main;
} visit;

static void innermost(void *argument) {
    visit *v = argument;
    char local = 0;
    CHECK(is_on(v->inner, &local));
    v->calls++;
}

static void go_deeper(void *argument) {
    visit *v = argument;
    char local[64] __attribute__((aligned(16))) = {0};
    CHECK(is_on(v->stack, local));
    CHECK((uintptr_t)local % 16 == 0);
    char text[80];
    /* SSE code in here faults where the stack is not aligned as the ABI says. */
    snprintf(text, sizeof text, "%g %g", 1.5, (double)v->calls);
    CHECK(strncmp(text, "1.5 ", 4) == 0);
    v->calls++;
    if (v->inner) switch_call(v->inner + STACK_BYTES, innermost, v);
}

/* Values that live in the registers a callee must keep. */
static long kept_registers(visit *v, long a, long b, long c, long d, long e, long f) {
    double x = (double)a * 1.5;
    switch_call(v->stack + STACK_BYTES, go_deeper, v);
    return a + b + c + d + e + f + (long)x;
}

static void *main_frame;

static _Unwind_Reason_Code see_frame(struct _Unwind_Context *context, void *argument) {
    visit *v = argument;
    v->frames_seen++;
    if (_Unwind_FindEnclosingFunction((void *)_Unwind_GetIP(context)) == main_frame)
        v->reached_main = 1;
    return v->frames_seen < 100 ? _URC_NO_REASON : _URC_NORMAL_STOP;
}

static void unwind(void *argument) { _Unwind_Backtrace(see_frame, argument); }

static int cleaned;
static void clean(void *unused) {
    (void)unused;
    cleaned = 1;
}

static void end_thread(void *unused) {
    (void)unused;
    pthread_exit(NULL);
}

/* pthread_exit unwinds by force, through the switch, to the thread's first frame. */
static void *thread_that_ends_inside(void *stack) {
    pthread_cleanup_push(clean, NULL);
    switch_call((char *)stack + STACK_BYTES, end_thread, NULL);
    pthread_cleanup_pop(0);
    return stack;
}

int main(void) {
    main_frame = (void *)(uintptr_t)main;
    visit v = {.stack = new_stack(), .inner = NULL};
    for (int i = 0; i < 1000; i++) CHECK(kept_registers(&v, i, 2, 3, 4, 5, 6) == i + 20 + i * 3 / 2);
    CHECK(v.calls == 1000);
    v.inner = new_stack();
    CHECK(kept_registers(&v, 1, 2, 3, 4, 5, 6) == 22);
    CHECK(v.calls == 1002);
#ifndef VRANGE_SWITCH_UCONTEXT
    switch_call(v.stack + STACK_BYTES, unwind, &v);
    CHECK(v.reached_main);
    CHECK(v.frames_seen < 20);
    pthread_t thread;
    void *result = &v;
    CHECK(pthread_create(&thread, NULL, thread_that_ends_inside, v.stack) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == NULL);
    CHECK(cleaned);
#else
    (void)unwind;
    (void)see_frame;
    (void)thread_that_ends_inside;
#endif
    puts("switched");
    return 0;
}
