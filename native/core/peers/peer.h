/* Another process of vrange, and how its memory is read without its help.
 *
 * An owner keeps a value in private memory that the kernel may take. A peer reads it by one system call. Each
 * page comes whole or not at all, and the same call reads what proves that the answer may be trusted:
 *
 * - The owner's proof: random words at a known address. After an exec, or in a later process with the same
 *   number, other words lie there. A fork wipes them.
 * - The owner's canary (rung.h), which must not be readable. Where it is, other code closed the owner's
 *   userfaultfd, and a lost page would read as zeros.
 *
 * What a read does not show is whether the owner has put other content there. For that the owner counts its
 * changes in memory that both map. The owner counts before it changes, and the peer looks after it has read. */
#ifndef VRANGE_PEER_H
#define VRANGE_PEER_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t pid;
    uint64_t started; /* in clock ticks since boot */
    const uint64_t *proof_at;
    uint64_t proof[2];
    const void *canary; /* NULL: the owner's rung has none */
} peer;

/* Describes this process as others find it. -errno if others can't be sure of it. */
int peer_self(peer *out);

enum {
    PEER_READ,
    PEER_LOST,    /* a page is missing there, or can't be told from a missing one */
    PEER_OVER,    /* the process has ended, or runs another program */
    PEER_REFUSED, /* this process may not read that one; it has said so on standard error, once */
};

/* Copies `bytes` from an address there to memory here. Anything but PEER_READ leaves rubbish in `to`. */
int peer_copy(const peer *owner, const void *from, void *to, size_t bytes);

/* Whether it still runs, and may be read: PEER_READ, PEER_OVER or PEER_REFUSED. */
int peer_check(const peer *owner);

/* Lets others read this process, where the kernel wants to be asked for that (Yama). The kernel keeps one
 * process whose descendants may read, so a call never takes away what another one has granted: the grant only
 * changes to one that includes it, or when the process that it names has ended. */
typedef enum {
    PEER_CHILDREN, /* of this process; before a fork */
    PEER_GROUP,    /* the leader of this process's group, and its descendants */
} peer_readers;
void peer_let_read(peer_readers who);

/* In the child of a fork, which is another process. */
void peer_after_fork(void);

#endif
