/* The accounts, for the fork handlers; vrange.h has what others call. */
#ifndef VRANGE_ACCOUNTS_H
#define VRANGE_ACCOUNTS_H

/* In the child of a fork: makes a segment of its own, with shards of its own. Owners of accounts go on
 * reading from where they were. */
void accounts_after_fork(void);

/* Notes the accounts' gauges once a second, for the case that other code cuts the segment's file. Inside the
 * gate. */
void accounts_look(void);

/* In a child that was made without fork handlers: the holder of the lock does not exist. */
void accounts_renew_lock(void);

#endif
