/* The caretaker: a thread that takes turns, and the help that it gets from other threads when it is late.
 *
 * The caretaker does not know what it takes care of. The floors above register a turn. The rooms below
 * only ask that the thread exists (caretaker_ensure), and offer their help when it is late
 * (caretaker_help). So ranges, arrays and the heap need not call up to the reserve. */
#ifndef VRANGE_CARETAKER_H
#define VRANGE_CARETAKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    /* Checks everything once, inside the gate. Gets how long the thread slept, which is 0 for the first turn
     * and after a call, and returns how long to sleep until the next turn. */
    uint64_t (*take)(uint64_t slept_ns);
    /* The part of the turn that can't wait, run on the thread of a caller that is inside the gate and
     * holds no range BUSY. Returns false if another thread is doing it already. */
    bool (*help)(void);
    /* What a caller does itself before it uses `bytes` more, however busy the thread is. */
    void (*before_use)(size_t bytes);
} caretaker_turn;

/* Call once, before the first thread can be started. */
void caretaker_register(caretaker_turn turn);

/* Starts the thread if there is none, and sets the longest time between two turns while there is much to
 * do. -errno if no thread can be started: then every range is offered at release. */
int caretaker_start(uint64_t tick_ns);
void caretaker_stop(void);

/* False in the child of vfork, which runs in its parent's memory. */
bool caretaker_is_of_this_process(void);

/* There is something to take care of: starts the thread, also in the child of a fork, unless it was
 * stopped or can't be started. Call inside the gate. */
void caretaker_ensure(void);

/* False before the first store, and in the child of a fork until there is something to take care of. */
bool caretaker_is_running(void);

/* True if no thread will run: a caller that releases a range must then offer it at once. */
bool caretaker_is_absent(void);

/* Something is going to use memory: wakes the thread if it sleeps for long. Async-signal-safe. */
void caretaker_rouse(void);

/* Something has happened: the thread takes a turn now. */
void caretaker_call(void);

/* Like caretaker_rouse, and does what can't wait before the caller uses `bytes` more, or if the thread is
 * late. Call inside the gate, with no range BUSY. */
void caretaker_help(size_t bytes);

/* Between the two calls there is no thread, and callers of caretaker_help take its turns if they are due.
 * When caretaker_pause returns, the kernel doesn't count the thread any more. Call both outside the gate. */
void caretaker_pause(void);
void caretaker_resume(void);
/* The same without a thread, until caretaker_ensure. */
void caretaker_resume_later(void);

/* In the child of a fork, where the thread does not exist. */
void caretaker_forget_thread(void);

uint64_t caretaker_tick_ns(void);

typedef struct {
    bool running;
    uint64_t ticks;
    uint64_t helped;  /* turns taken by other threads because this one was late */
    uint64_t busy_ns; /* processor time of the thread, without its sleep */
} caretaker_info;

void caretaker_read(caretaker_info *out);

#endif
