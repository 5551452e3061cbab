/* How far a deep call may go; see stack_room.h.
 *
 * A runaway recursion takes memory in three ways: pages of the deep stack, Python's frames on the heap
 * (recursion in pure Python takes nothing else from 3.11 on), and objects. Its end takes even more. Every
 * frame that the RecursionError passes leaves a traceback entry and a frame object, about as many bytes as
 * the frame had, and printing the traceback takes as many again. So a recursion must be stopped while the
 * memory for its end is still there. No fixed number of levels can do that: frames differ, and other
 * threads allocate meanwhile. So the memory that is left is checked again and again:
 *
 * - The stack of a call without a size is closed except for its first part. A touch of the closed part
 * comes here from the handler of sigsegv.c. If memory is left, the next step is opened.
 * - The interpreter takes frames in parts of 16 KiB, and small objects in arenas, from a provider that
 * vrange wraps (pymalloc_hook.c). The wrapper reports each one to stack_room_observe.
 *
 * If too little memory is left, the thread's remaining levels are cut to none, so that the next level
 * raises RecursionError; from 3.14 on the bounds of the stack are cut too. As soon as the recursion is
 * shallower, or memory is free again, the levels are restored. So this works every time, not once a call.
 *
 * The last part of a stack of any kind, the warning zone, is opened in parts in the same way. The levels
 * of a second recursion may take more stack than those of the first, and the number of levels was
 * restored. */
#include "stacks/stack_room.h"

#include <stdatomic.h>
#include <stdint.h>

#include "base/amounts.h"
#include "os/os.h"
#include "pressure/headroom_in_signal.h"
#include "stacks/stack_current.h"
#include "stacks/stack_pages.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* 144 bytes a frame of a small function become 275 once the exception is caught, and 380 to 480 while it
 * is printed (3.11 to 3.13): twice the frame's own bytes, and a margin. */
#define END_OF_FRAMES 3
#define END_OF_LEVEL 432 /* a level, if frames are elsewhere, in generators */
#define FRAMES_MOST (256 * KIB) /* a larger allocation is an arena */
#define UNSEEN_BYTES ((int64_t)(96 * KIB))   /* 220 levels: not checked */
#define SHALLOW_BYTES ((int64_t)(480 * KIB)) /* 1,100 levels, as many as any thread may have: not cut */

#define STEP_LEAST (256 * KIB)
#define STEP_MOST (16 * MIB)
#define STEP_SHARE 16 /* of the room */
#define SIGNAL_BYTES (64 * KIB)
#define CUT_PAGES 7
#define LEVELS_ALWAYS 1100
#define IGNORED_LEVELS 200 /* after a cut */
#define END_BYTES (512 * KIB) /* of the stack, for code that runs while the error is raised */
#define ZONE_PARTS 16

#define LOOK_MOST MIB
#define LOOK_SHARE 32 /* of the room, which frames may take before the next check */
#define FALL_SHARE 4  /* likewise, at the rate at which the room fell since the last check */
#define LOOK_NS 4000000ull
#define WIDE_ROOM ((int64_t)256 << 20) /* more than all threads together allocate between two checks */
#define WIDE_LOOK_NS 16000000ull

/* CPython 3.14 raises RecursionError in the second 16 KiB from the end of what it takes for the stack, and
 * ends the process in the last 16 KiB. */
#define BOUND_BELOW (30 * KIB)
#define BOUNDS_LEAST (512 * KIB)

int (*stack_set_bounds)(void *thread, void *low, size_t bytes);
void *(*stack_thread_now)(void);

void stack_room_settle(stack *s) {
    if (!s->is_own || !s->thread || (stack_thread_now && stack_thread_now() == s->thread)) return;
    s->counter = s->levels = NULL;
    s->thread = NULL;
    s->is_cut = false;
    s->cut = s->cut_levels = 0;
}

static _Atomic int64_t needed; /* to end all deep calls that are under way */
static _Atomic int looking;    /* how many of them need anything: they share the room */

/* The sums stay right if a signal handler does the same in between. */
static int64_t publish(stack *s, int64_t need) {
    const int64_t before = atomic_exchange(&s->needed, need), more = need - before;
    if (!before != !need) atomic_fetch_add(&looking, need ? 1 : -1);
    return atomic_fetch_add(&needed, more) + more;
}

/* Pages of the stack that an earlier call left offered and that this call uses again. They count as
 * needed, because the kernel's figures count them as reclaimable. */
static int64_t used_again(const stack *s, const char *sp) {
    const char *kept = stack_kept_low(s);
    const char *deepest = s->open_low < s->first_low ? s->open_low : sp;
    const char *from = deepest > s->offered_low ? deepest : s->offered_low;
    return from < kept ? kept - from : 0;
}

static size_t share_of(int64_t room, int64_t parts) {
    const int callers = atomic_load(&looking);
    return room > 0 ? (size_t)(room / (parts * (callers > 0 ? callers : 1))) : 0;
}

/* Returns the memory that the end of a call takes, if its frames end at `sp`. It includes as much again as
 * its stack holds, because recursion in C keeps objects, and generators with their frames. */
static int64_t end_of(const stack *s, const char *sp) {
    int64_t frames = END_OF_FRAMES * s->frame_bytes;
    if (s->levels && s->levels != s->counter) { /* 3.11 counts C's levels in the same place */
        const int64_t levels = (int64_t)s->levels_at_entry - *s->levels - s->cut_levels;
        if (END_OF_LEVEL * levels > frames) frames = END_OF_LEVEL * levels;
    }
    return (frames > 0 ? frames : 0) + (s->base - sp);
}

/* Returns the memory that is left after what the ends of all deep calls take. */
static int64_t room_for(stack *s, const char *sp) {
    const int64_t all = publish(s, end_of(s, sp) + used_again(s, sp));
    return headroom_in_signal(all + (int64_t)(STEP_SHARE * STEP_MOST)) - all;
}

/* ---- cutting and restoring levels -------------------------------------------------------------- */

/* How many levels a cut takes. The first levels stay, so that code which runs when the recursion is over has
 * as many as in any thread. */
static int levels_to_cut(const volatile int *left, int at_entry, int kept) {
    if (!left) return 0;
    const int used = at_entry - *left - kept;
    return *left - (used < LEVELS_ALWAYS ? LEVELS_ALWAYS - used : 0);
}

static void cut_count(volatile int *left, int at_entry, int *kept) {
    const int cut = levels_to_cut(left, at_entry, *kept);
    if (cut <= 0) return;
    *kept += cut;
    *left -= cut;
}

static void cut_levels(stack *s, char *sp) {
    s->is_cut = s->was_cut = true;
    s->cut_at = sp;
    cut_count(s->counter, s->counter_at_entry, &s->cut);
}

static void cut_all(stack *s, char *sp) {
    cut_levels(s, sp);
    if (s->levels != s->counter) cut_count(s->levels, s->levels_at_entry, &s->cut_levels);
    /* The interpreter refuses bounds that are too narrow by raising an exception. Making the exception would
     * call the allocator again, inside the call that this runs in. */
    if (stack_set_bounds && s->thread && sp > s->low + BOUND_BELOW && (size_t)(s->top - sp) > BOUNDS_LEAST)
        stack_set_bounds(s->thread, sp - BOUND_BELOW, (size_t)(s->top - sp) + BOUND_BELOW);
}

static void give_levels_back(stack *s) {
    s->is_cut = false;
    if (s->counter) *s->counter += s->cut;
    if (s->levels && s->levels != s->counter) *s->levels += s->cut_levels;
    s->cut = s->cut_levels = 0;
    if (stack_set_bounds && s->thread) stack_set_bounds(s->thread, s->low, s->bytes);
}

/* Whether levels were left since the cut: then this is another recursion, and can be cut again. */
static bool has_levels(const stack *s) {
    return levels_to_cut(s->counter, s->counter_at_entry, s->cut) > 0 ||
           (s->levels != s->counter && levels_to_cut(s->levels, s->levels_at_entry, s->cut_levels) > 0);
}

/* ---- opening step by step ---------------------------------------------------------------------- */

static char *aligned_down(char *address, size_t to) {
    return (char *)((uintptr_t)address / to * to);
}

/* Opens from `below` bytes below `address` up to what is open. */
static bool open_to(char *address, size_t below, size_t alignment, char *lowest, char **open_low) {
    char *from = (size_t)(address - lowest) > below ? aligned_down(address - below, alignment) : lowest;
    if (from < lowest) from = lowest;
    if (os_open(from, (size_t)(*open_low - from)) < 0) return false;
    *open_low = from;
    return true;
}

/* The fault may come between the interpreter's reading of the count and its writing it back, which undoes
 * the cut. If a whole number of levels fills a step, every fault comes at the same instruction. So only a
 * few pages are opened after a cut, and a different number each time: the next fault comes soon, at
 * another instruction, and cuts again. */
static size_t little(stack *s) { return (1 + s->cuts++ % CUT_PAGES) * os_page_bytes(); }

static bool open_step(stack *s, char *address, char *sp) {
    const int64_t room = room_for(s, address);
    size_t step = STEP_LEAST;
    if (room > 0) {
        const size_t share = share_of(room, STEP_SHARE);
        if (share > step) step = share < STEP_MOST ? share : STEP_MOST;
    } else if (!s->is_cut || has_levels(s)) {
        cut_all(s, sp);
        step = little(s);
    } else if (address < s->cut_at && (size_t)(s->cut_at - address) > END_BYTES && headroom_in_signal(0) <= 0) {
        return false; /* the recursion counts no levels, and would go on to take the last of the memory */
    }
    /* A small step must take small pages: no huge page may reach over it. */
    const bool is_huge = s->huge_top > s->warning_top && step >= OS_HUGE_BYTES;
    const size_t alignment = is_huge ? OS_HUGE_BYTES : os_page_bytes();
    return open_to(address, step, alignment, s->warning_top, &s->open_low) ||
           open_to(address, SIGNAL_BYTES, os_page_bytes(), s->warning_top, &s->open_low);
}

static bool open_part_of_zone(stack *s, char *address) {
    if (!s->counter) return false; /* the interpreter checks the stack itself */
    size_t part = (size_t)(s->warning_top - s->low) / ZONE_PARTS;
    if (!s->is_cut || has_levels(s)) {
        cut_levels(s, address);
        part = little(s);
    }
    if (s->open_low > s->warning_top) { /* the frame jumped over the closed part of the steps */
        if (os_open(s->warning_top, (size_t)(s->open_low - s->warning_top)) < 0) return false;
        s->open_low = s->warning_top;
    }
    if (!open_to(address, part, os_page_bytes(), s->low, &s->warning_low)) return false;
    atomic_store(&s->warned, true);
    return true;
}

bool stack_room_open(stack *s, char *address, char *sp) {
    stack_room_settle(s);
    if (address >= s->low && address < s->warning_low && address < s->warning_top)
        return open_part_of_zone(s, address);
    if (address >= s->warning_top && address < s->open_low) return open_step(s, address, sp);
    return false;
}

bool stack_room_for_signal(stack *s, char *sp) {
    char *const closed = s->open_low > s->warning_top ? s->open_low : s->warning_low;
    if (sp < closed || (size_t)(sp - closed) > SIGNAL_BYTES || closed <= s->low) return false;
    return stack_room_open(s, closed - 1, sp);
}

/* ---- checking as the heap grows ---------------------------------------------------------------- */

/* True if nothing that was opened is in use any more. */
static bool close_zone(stack *s, const char *sp) {
    if (!atomic_load(&s->warned)) return true;
    if (sp < s->warning_top + SIGNAL_BYTES) return false;
    stack_close_warning(s);
    return true;
}

/* Frames hold objects of any size too. So the checks come close together at first, and the closer, the
 * faster the room falls. */
static size_t next_look(const stack *s, int64_t room, int64_t room_before) {
    size_t after = lesser(2 * s->look_after, lesser(LOOK_MOST, share_of(room, LOOK_SHARE)));
    if (room_before > room) {
        const double a_byte = (double)(room_before - room) / (double)(s->unlooked_bytes + 1);
        after = lesser(after, (size_t)((double)share_of(room, FALL_SHARE) / a_byte));
    }
    return after > STACK_LOOK_LEAST ? after : STACK_LOOK_LEAST;
}

static void look(stack *s, char *sp, bool grows) {
    bool is_roomy = true;
    if (s->automatic) {
        const int64_t room = room_for(s, sp);
        s->look_after = next_look(s, room, s->room);
        s->room = room;
        is_roomy = room > s->needed / 8 + (int64_t)MIB;
    }
    s->unlooked_bytes = 0;
    s->looked_ns = os_now_coarse_ns();
    if (s->automatic && s->room <= 0) {
        const bool is_new = !s->is_cut || has_levels(s);
        if (grows && is_new && end_of(s, sp) >= SHALLOW_BYTES) cut_all(s, sp);
    } else if (s->is_cut && is_roomy && close_zone(s, sp)) {
        give_levels_back(s);
    }
}

/* Reading what is left takes as long as thousands of calls. */
static bool is_look_due(const stack *s) {
    const bool is_wide = s->room >= WIDE_ROOM;
    if (!is_wide && s->unlooked_bytes >= s->look_after) return true;
    return os_now_coarse_ns() - s->looked_ns >= (is_wide ? WIDE_LOOK_NS : LOOK_NS);
}

/* CPython 3.13 does not count calls that leave out some of a function's defaults (copy.deepcopy recurses
 * so). Only refusing memory for frames ends such a recursion. */
static bool ignores_count(const stack *s) {
    return s->is_cut && s->levels && *s->levels < -IGNORED_LEVELS;
}

static bool is_shallow(const stack *s, const char *sp) {
    return END_OF_FRAMES * s->frame_bytes + (s->base - sp) < SHALLOW_BYTES;
}

bool stack_room_observe(ptrdiff_t bytes) {
    stack *s = stack_current();
    if (!s || (!s->automatic && !s->is_cut)) return true;
    const size_t size = (size_t)(bytes < 0 ? -bytes : bytes);
    const bool is_frames = size < FRAMES_MOST;
    char *sp = __builtin_frame_address(0);
    if (is_frames) s->frame_bytes += bytes;
    s->unlooked_bytes += size;
    /* Programs cross the border between two parts often. */
    if (s->is_own && is_frames && !s->is_cut && !s->needed && is_shallow(s, sp)) return true;
    stack_room_settle(s);
    if (!s->is_cut) {
        if (end_of(s, sp) < (s->is_own ? SHALLOW_BYTES : UNSEEN_BYTES)) {
            if (s->needed) publish(s, 0);
            return true;
        }
        if (!is_look_due(s)) return true;
    }
    /* After a cut, arenas are allocated for the traceback: only frames show that the recursion goes on. */
    look(s, sp, bytes > 0 && (is_frames || !s->is_cut));
    if (bytes < 0 || !is_frames || s->room > 0 || !ignores_count(s)) return true;
    s->frame_bytes -= bytes;
    s->is_refused = true;
    return false;
}

/* ---- after the call ---------------------------------------------------------------------------- */

void stack_room_close(stack *s) {
    if (s->needed) publish(s, 0);
    if (s->open_low >= s->first_low) return;
    os_protect(s->open_low, (size_t)(s->first_low - s->open_low));
    s->open_low = s->first_low;
}
