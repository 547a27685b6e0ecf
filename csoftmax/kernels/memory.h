/* Memory of large results, kept for the next ones when their arrays are gone.

A new array's pages are cleared by the kernel when they are first written: with huge pages half the
time of a softmax, with small ones several times it. And the C library may give back what is freed
after each call, however soon it is needed again. So it is kept here, the newest first, up to
`csoftmax_keep_limit` bytes in all, and marked as free (MADV_FREE): the kernel takes it whenever it
needs some. docs/memory.md has measurements. Arrays own their data, which NumPy asks their allocator
to free. */

#ifndef CSOFTMAX_MEMORY_H
#define CSOFTMAX_MEMORY_H

#include <Python.h>
#include <numpy/ndarraytypes.h>

static size_t csoftmax_keep_limit;

#if defined(__linux__)
#define CSOFTMAX_KEEPS_MEMORY 1
#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>

/* A huge page: memory is aligned so, and marked in whole ones, which would be split else. */
#define CSOFTMAX_HUGE ((size_t)1 << 21)

typedef struct csoftmax_block {    /* at the start of memory that is kept */
    size_t size;
    struct csoftmax_block *next;
} csoftmax_block;

/* Whoever takes or keeps some has the whole list meanwhile, others find none. */
static csoftmax_block *csoftmax_kept;

static csoftmax_block *csoftmax_swap(csoftmax_block *list) {
    return __atomic_exchange_n(&csoftmax_kept, list, __ATOMIC_ACQ_REL);
}

/* All of a list, back to the C library. */
static void csoftmax_let_go(csoftmax_block *list) {
    for (csoftmax_block *next; list != NULL; list = next) {
        next = list->next;
        free(list);
    }
}

static void *csoftmax_take(void *context, size_t size) {
    csoftmax_block *list = csoftmax_swap(NULL), **place = &list, *block;
    void *fresh = NULL;
    (void)context;
    /* One that is large enough, and no more than half of it would be left over. */
    while (*place != NULL && ((*place)->size < size || (*place)->size / 2 > size))
        place = &(*place)->next;
    block = *place;
    if (block != NULL) *place = block->next;
    csoftmax_let_go(csoftmax_swap(list));    /* what others have kept meanwhile */
    if (block != NULL) return block;
    if (posix_memalign(&fresh, CSOFTMAX_HUGE, size) != 0) return NULL;
    if (size >= 2 * CSOFTMAX_HUGE) madvise(fresh, size, MADV_HUGEPAGE);
    return fresh;
}

static void csoftmax_keep(void *context, void *data, size_t size) {
    csoftmax_block *block = data, **end = &block;
    size_t kept = 0, count = 0;
    (void)context;
    size = malloc_usable_size(data);    /* NumPy's is what the array takes */
    if (size >= 2 * CSOFTMAX_HUGE)    /* but for the first, where the block is */
        madvise((char *)data + CSOFTMAX_HUGE, (size & -CSOFTMAX_HUGE) - CSOFTMAX_HUGE, MADV_FREE);
    block->size = size;
    block->next = csoftmax_swap(NULL);
    while (*end != NULL && (kept += (*end)->size) <= csoftmax_keep_limit && ++count <= 32)
        end = &(*end)->next;
    csoftmax_let_go(*end);
    *end = NULL;
    csoftmax_let_go(csoftmax_swap(block));
}

/* For what NumPy does with an array later, as `resize`. */
static void *csoftmax_take_zeros(void *context, size_t count, size_t size) {
    (void)context;
    return calloc(count, size);
}
static void *csoftmax_resize(void *context, void *data, size_t size) {
    (void)context;
    return realloc(data, size);
}

static PyDataMem_Handler csoftmax_memory = {"csoftmax", 1, {
    NULL, csoftmax_take, csoftmax_take_zeros, csoftmax_resize, csoftmax_keep,
}};
#else
#define CSOFTMAX_KEEPS_MEMORY 0
static PyDataMem_Handler csoftmax_memory;
#endif

/* Scratch memory of calls, not on their stacks: a thread's may be small. One piece is kept for the
   next call, as the C library takes 50 ns to find it. Seen by tracemalloc; needs no GIL. */
enum { CSOFTMAX_SPARE = 122880 };    /* less than what it returns to the kernel each time */

static void *csoftmax_spare;

static inline void *csoftmax_take_scratch(size_t size) {
    void *spare = NULL;
    if (size <= CSOFTMAX_SPARE) {
        spare = __atomic_exchange_n(&csoftmax_spare, NULL, __ATOMIC_ACQ_REL);
        size = CSOFTMAX_SPARE;
    }
    return spare != NULL ? spare : PyMem_RawMalloc(size);
}

static inline void csoftmax_leave_scratch(void *scratch, size_t size) {
    if (size <= CSOFTMAX_SPARE)
        scratch = __atomic_exchange_n(&csoftmax_spare, scratch, __ATOMIC_ACQ_REL);
    PyMem_RawFree(scratch);
}

#endif
