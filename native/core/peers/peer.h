/* Another process of vrange, and how its memory is read without its help.
 *
 * An owner keeps a value in private memory that the kernel may take. A peer reads it by one system call. Each
 * page comes whole or not at all, and the same call reads what proves that the answer may be trusted, in this
 * order:
 *
 * - The word with the range's state, if the peer knows where that is. The owner changes the word, by its state
 *   or its generation, before it changes the content.
 * - The content, and the word again. The content is whole if both copies of the word say that the range is
 *   there. A peer that does not know the word looks, after it has read, at changes that the owner counts in
 *   memory that both map.
 * - The owner's proof: random words at a known address. After an exec, or in a later process with the same
 *   number, other words lie there. A fork wipes them.
 * - The owner's rung and the number of its mends (rung.h). While the owner's userfaultfd is open, the call ends
 *   at a page that the kernel took. Once other code has closed it, such a page reads as zeros. A mend opens a
 *   new one, and pages that were lost before may then read as zeros. The number shows that.
 * - The owner's canary, which must not be readable: the call ends there, after everything else was copied. If
 *   it can be read, other code has closed the userfaultfd. On the eager rung there is no canary, because the
 *   kernel takes nothing. */
#ifndef VRANGE_PEER_H
#define VRANGE_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Other processes write such descriptions too, so its addresses are never used here, only there. */
typedef struct {
    uint64_t proof[2];
    uint64_t proof_at, sign_at; /* addresses in that process */
    uint64_t canary_at;         /* 0: the owner's rung has none */
    uint64_t mends;             /* when what is read there was put there */
    uint64_t started;           /* in clock ticks since boot */
    uint32_t pid, rung;
} peer;

/* Describes this process as others find it. -errno if others can't be sure of it. */
int peer_self(peer *out);

enum {
    PEER_READ,
    PEER_LOST,    /* a page is missing there, or can't be told from a missing one */
    PEER_OVER,    /* the process has ended, or runs another program */
    PEER_REFUSED, /* this process may not read that one */
};

/* What is read: the first `head_bytes` go to `head`, and the others to `to`. */
typedef struct {
    uint64_t from; /* an address there */
    void *head, *to;
    size_t head_bytes, bytes; /* the head has less than OS_READ_PARTS_MOST */
    uint64_t word_at; /* 0: none is read. Otherwise both copies of the word must be accepted */
    bool (*accepts)(uint64_t word, uint64_t expected, bool canary_counts);
    uint64_t expected;
    int error; /* out: why the kernel refuses, as -errno */
} peer_content;

/* Anything but PEER_READ leaves rubbish in the memory here. */
int peer_read(const peer *owner, peer_content *content);

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
