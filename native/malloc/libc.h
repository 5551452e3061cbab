/* glibc's own malloc, under the names that stay its own while another malloc is in front. */
#ifndef VRANGE_MALLOC_LIBC_H
#define VRANGE_MALLOC_LIBC_H

#include <stdbool.h>
#include <stddef.h>

extern void *__libc_malloc(size_t bytes);
extern void __libc_free(void *block);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *block, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);
extern void *__libc_valloc(size_t bytes);
extern void *__libc_pvalloc(size_t bytes);

/* glibc has no such name for these two, so they are looked up in its file. Returns false if they are not there:
 * then this is no glibc. */
bool libc_find(void);

/* Whether another allocator, which was loaded after this library, brings functions of the names above: mimalloc
 * and tcmalloc do. Then they are what is called here. */
bool libc_is_replaced(void);

/* 0 before libc_find. */
size_t libc_usable_size(void *block);
void *libc_aligned_alloc(size_t alignment, size_t bytes);

#endif
