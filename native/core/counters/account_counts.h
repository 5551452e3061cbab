/* What an account counted, and the figures that readers get of it. accounts.c opens and closes accounts. */
#ifndef VRANGE_ACCOUNT_COUNTS_H
#define VRANGE_ACCOUNT_COUNTS_H

#include "counters/segment_layout.h"

typedef struct {
    uint64_t purged_total, shed_total, refaults, requests[VRANGE_REQUESTS], refused;
    uint64_t regenerated, regenerate_ns;
} counts;

counts counts_of_slot(const segment_slot *slot);
counts counts_of_overflow(const segment_overflow *slot);

void counts_subtract(counts *from, const counts *by);
void counts_add(counts *to, const counts *by);

/* The account's gauges as they are, and the counts in `since`. */
void figures_of(const struct vrange_account *account, const counts *since, vrange_account_counters *out);

/* Adds an overflow slot's figures to those of "other". Not its computations: "other" has these already. */
void figures_add(vrange_account_counters *to, const vrange_account_counters *one);

#endif
