/* The address space of a deep stack: a guard at each end, the warning zone, and the part on huge pages;
 * stack_state.h has a picture. */
#include "stacks/stack_mapping.h"

#include <errno.h>
#include <stdint.h>

#include "base/space_budget.h"
#include "os/os.h"
#include "stacks/stack_pages.h"

#define GUARD_BYTES (64u * 1024)
#define DUMPED_MOST ((size_t)256 << 20)

size_t stack_warning_most;

size_t stack_whole_pages(size_t bytes) {
    const size_t page = os_page_bytes();
    return (bytes + page - 1) / page * page;
}

static size_t warning_bytes(size_t bytes) {
    size_t eighth = stack_whole_pages(bytes / 8);
    return eighth < stack_warning_most ? eighth : stack_warning_most;
}

/* The top is aligned to the end of a huge page, because the part that may be huge begins one huge page
 * below it. */
static void lay_out(stack *s, size_t bytes) {
    const uintptr_t end = (uintptr_t)s->mapping + GUARD_BYTES + bytes + OS_HUGE_BYTES - 1;
    s->top = (char *)(end / OS_HUGE_BYTES * OS_HUGE_BYTES);
    s->low = s->top - bytes;
    s->warning_top = s->low + warning_bytes(bytes);
    s->huge_top = s->warning_top;
    /* An automatic stack is open down to where huge pages begin, so that no step splits a huge page. */
    s->first_low = s->warning_top;
    if (s->automatic && bytes > OS_HUGE_BYTES + (size_t)(s->warning_top - s->low))
        s->first_low = s->top - OS_HUGE_BYTES;
    s->open_low = s->first_low;
    s->warning_low = s->warning_top;
}

static void make_huge(stack *s) {
    char *const huge_top = s->top - OS_HUGE_BYTES;
    const uintptr_t low = (uintptr_t)s->warning_top + OS_HUGE_BYTES - 1;
    char *const huge_low = (char *)(low / OS_HUGE_BYTES * OS_HUGE_BYTES);
    if (huge_low >= huge_top || !os_has_huge_pages()) return;
    os_prefer_huge_pages(huge_low, (size_t)(huge_top - huge_low));
    s->huge_top = huge_top;
}

/* A dump has what is opened of an automatic stack. A stack of a size is open as a whole, and mostly empty. */
static void dump_top(stack *s) {
    char *const top_part = s->bytes > DUMPED_MOST ? s->top - DUMPED_MOST : s->first_low;
    char *const from = top_part > s->first_low ? top_part : s->first_low;
    os_dump(from, (size_t)(s->top - from));
}

static space_use use_of(const stack *s) { return s->automatic ? SPACE_NEEDED : SPACE_ASKED; }

int stack_map(stack *s, size_t bytes, bool automatic) {
    if (bytes > SIZE_MAX / 4) return -ENOMEM;
    s->mapped = bytes + 2 * GUARD_BYTES + OS_HUGE_BYTES;
    s->bytes = bytes;
    s->automatic = automatic;
    s->mapping = space_reserve(s->mapped, 0, use_of(s));
    if (!s->mapping) return -ENOMEM;
    lay_out(s, bytes);
    int result = os_commit(s->first_low, (size_t)(s->top - s->first_low));
    if (result < 0) {
        space_return(s->mapping, s->mapped, use_of(s));
        return -ENOMEM; /* EACCES and other errors can't happen for our own memory */
    }
    dump_top(s);
    if (s->first_low > s->warning_top)
        os_forbid_huge_pages(s->warning_top, (size_t)(s->first_low - s->warning_top));
    make_huge(s);
    s->offered_low = stack_kept_low(s);
    s->offered_lately = false;
    s->unlooked = 0;
    atomic_store(&s->warned, false);
    atomic_store(&s->high_water, 0);
    return 0;
}

void stack_unmap(stack *s) { space_return(s->mapping, s->mapped, use_of(s)); }
