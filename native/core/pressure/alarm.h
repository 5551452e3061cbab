/* The kernel wakes the caretaker when memory gets short. Called by the caretaker inside the gate. */
#ifndef VRANGE_ALARM_H
#define VRANGE_ALARM_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    ALARM_NONE,  /* the kernel does not wake it, or not yet */
    ALARM_LATE,  /* when it begins to reclaim memory */
    ALARM_EARLY, /* when less than `enough` is free below a limit */
} alarm_kind;

/* Asks the kernel to wake the caretaker (caretaker_call) when memory gets short or a limit changes. Returns
 * which of these reports the caretaker can rely on now. */
alarm_kind alarm_set(uint64_t enough);

/* Whether the kernel has reported since alarm_set last asked for it. */
bool alarm_has_come(void);

/* Ends the thread that waits for the kernel. When it returns, the kernel doesn't count that thread any more.
 * Outside the gate; the caretaker must not run. */
void alarm_end(void);
void alarm_after_fork(void);

#endif
