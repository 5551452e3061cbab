/* The caretaker: the core's one thread, and whoever does its work when it is late.
 *
 * It knows nothing of what it looks after. The floors above register a turn; the rooms below only ask
 * that the thread exists (caretaker_ensure), and offer their help where it is late (caretaker_help).
 * That keeps ranges, arrays and the heap from calling up to the reserve. */
#ifndef VRANGE_CARETAKER_H
#define VRANGE_CARETAKER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    /* One look after everything, inside the gate. Returns how long to sleep until the next one. */
    uint64_t (*take)(uint64_t slept_ns);
    /* The part of it that can't wait, on the thread of a caller that is inside the gate and holds no
     * range BUSY. False: another thread is at it. */
    bool (*help)(void);
} caretaker_turn;

/* Once, before the first thread can be started. */
void caretaker_register(caretaker_turn turn);

/* Starts the thread if there is none, and sets how often it looks at least while there is much to do.
 * -errno where no thread can be had: then every range is offered at release. */
int caretaker_start(uint64_t tick_ns);
void caretaker_stop(void);

/* There is something to look after: starts the thread, in the child of a fork too, unless it was
 * stopped or can't be had. Inside the gate. */
void caretaker_ensure(void);

/* False before the first store, and in the child of a fork until there is something to look after. */
bool caretaker_is_running(void);

/* True where no thread will run: whoever releases a range has to offer it at once. */
bool caretaker_is_absent(void);

/* Does what can't wait if the thread is late. Inside the gate, with no range BUSY. */
void caretaker_help(void);

/* In the child of a fork, where the thread does not exist. */
void caretaker_forget_thread(void);

uint64_t caretaker_tick_ns(void);

typedef struct {
    bool running;
    uint64_t ticks;
    uint64_t helped;  /* turns taken by others, as the thread was late */
    uint64_t busy_ns; /* processor time of the thread outside sleep */
} caretaker_info;

void caretaker_read(caretaker_info *out);

#endif
