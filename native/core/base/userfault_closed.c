/* Mending, as the rooms ask for it. The floor above all of them registers how it is done, since it knows what
 * has to be registered again (process/userfault_reopen.c). */
#include "base/userfault_closed.h"

#include "base/gate.h"
#include "base/rung.h"
#include "os/os.h"

#define TOUCH_WAIT_NS 1000000u
#define TOUCH_WAITS 100u /* for the caretaker; after that there is none, or it can't run */

static void (*mend_closed)(void);

void mend_register(void (*function)(void)) { mend_closed = function; }

void mend(void) {
    gate_leave();
    gate_close();
    if (!rung_holds()) mend_closed();
    gate_open();
    gate_enter();
}

int mend_for_touch(unsigned waited, int error) {
    if (rung_holds()) return error;
    const bool was_inside = gate_step_out();
    if (waited < TOUCH_WAITS) {
        os_sleep_ns(TOUCH_WAIT_NS);
    } else {
        gate_enter();
        mend();
        gate_leave();
    }
    if (was_inside) gate_enter();
    return 0;
}
