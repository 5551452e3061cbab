/* Stalls, as the kernel reports them: a total that grows, of which a window of about a second is taken. */
#include "pressure/stalls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "os/os.h"

#define MACHINE_STALLS "/proc/pressure/memory"
#define WINDOW_NS 1000000000ull
#define LEAST_NS 200000000ull /* in less time than this a share means nothing */
#define LOOKS_A_READING 3     /* the kernel's figure covers the last second */
#define MICROSECOND 1000u

void stalls_open(stalls *s) {
    if (os_keep(MACHINE_STALLS, &s->machine) == -ENOENT) os_forget(&s->machine);
}

void stalls_close(stalls *s) { os_forget(&s->machine); }

double stalls_share(stalls *s, limits *l, int place, double before) {
    os_kept *own = place >= 0 ? &l->cgroups[place].stalls : NULL;
    os_kept *file = own && os_is_kept(own) ? own : &s->machine;
    char text[256];
    if (s->of == place && s->looks++ % LOOKS_A_READING != 0) return before;
    if (os_kept_text(file, text, sizeof text) < 0) return 0;
    const char *total = strstr(text, "total=");
    if (strncmp(text, "some ", 5) != 0 || !total) return 0;
    const uint64_t now = os_now_ns(), us = strtoull(total + 6, NULL, 10);
    const uint64_t passed = now - s->since_ns;
    if (s->of != place || us < s->since_us || passed > 3 * WINDOW_NS) {
        s->of = place;
        s->looks = 1;
        s->since_ns = now;
        s->since_us = us;
        return 0;
    }
    if (passed < LEAST_NS) return before;
    const double share = (double)((us - s->since_us) * MICROSECOND) / (double)passed;
    if (passed > WINDOW_NS) {
        s->since_ns = now;
        s->since_us = us;
    }
    return share;
}
