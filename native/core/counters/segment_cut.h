/* A stats segment whose file other code cuts short while it is mapped.
 *
 * A touch behind the end of the file does not end the process: private memory takes the segment's place, at the
 * same address. It has the names of the accounts, and the gauges as they were when they were last noted. The
 * process counts on from zero, and readers outside find nothing. */
#ifndef VRANGE_SEGMENT_CUT_H
#define VRANGE_SEGMENT_CUT_H

#include <stdbool.h>
#include <stdint.h>

#include "counters/segment_layout.h"

/* If the segment is a file, makes our handler of SIGBUS the first one. It is not removed any more. Inside the
 * gate. */
void segment_cut_arm(void);

/* From now on the segment is this mapping of a file. Without memory for what would take its place, a cut ends
 * the process, as it would without us. */
void segment_cut_watch(segment_header *segment);

/* Notes what would be lost: of all accounts, now and then, because the gauges change; or of one, or none, after
 * a change. Callers keep others from opening and closing accounts. */
void segment_cut_note(segment_header *segment);
void segment_cut_note_slot(segment_header *segment, uint32_t slot);
void segment_cut_note_header(const segment_header *segment);

/* Whether the file was cut, and private memory is in its place. */
bool segment_is_cut(void);

/* Changes with each cut: the counts begin at zero. */
uint32_t segment_cuts(void);

#endif
