/* Memory of large results, kept for the next ones when their arrays are gone.

A new array's pages are cleared by the kernel when they are first written: with huge pages half the
time of a softmax, with small ones several times it. And the C library may give back what is freed
after each call, however soon it is needed again. So it is kept here, the newest first, up to
`csoftmax_keep_limit` bytes in all, and marked as free (MADV_FREE): the kernel takes it whenever it
needs some. docs/memory.md has measurements.

Arrays own their data, which NumPy asks their allocator to free. They are made with it: NumPy's own
way to choose an allocator (PyDataMem_SetHandler) sets a context variable, which where memory is
missing crashes, or fails to set it back. Where a host has set one, its allocator is used. */

#ifndef CSOFTMAX_MEMORY_H
#define CSOFTMAX_MEMORY_H

#include <Python.h>
#include <numpy/arrayobject.h>

static size_t csoftmax_keep_limit;

#if defined(__linux__)
#define CSOFTMAX_KEEPS_MEMORY 1
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* A huge page. Memory is marked as free in whole ones, which would be split else. */
#define CSOFTMAX_HUGE ((uintptr_t)1 << 21)

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
    uintptr_t first;
    (void)context;
    /* One that is large enough, and no more than half of it would be left over. */
    while (*place != NULL && ((*place)->size < size || (*place)->size / 2 > size))
        place = &(*place)->next;
    block = *place;
    if (block != NULL) *place = block->next;
    csoftmax_let_go(csoftmax_swap(list));    /* what others have kept meanwhile */
    if (block != NULL || (block = malloc(size)) == NULL || size < 2 * CSOFTMAX_HUGE) return block;
    first = (uintptr_t)block & -(uintptr_t)sysconf(_SC_PAGESIZE);
    madvise((void *)first, (uintptr_t)block + size - first, MADV_HUGEPAGE);
    return block;
}

static void csoftmax_keep(void *context, void *data, size_t size) {
    csoftmax_block *block = data, **end = &block;
    size_t kept = 0, count = 0;
    uintptr_t first, end_of_data;
    (void)context;
    size = malloc_usable_size(data);    /* NumPy's is what the array takes */
    /* But for what the block is written to. */
    first = ((uintptr_t)(block + 1) + CSOFTMAX_HUGE - 1) & -CSOFTMAX_HUGE;
    end_of_data = ((uintptr_t)data + size) & -CSOFTMAX_HUGE;
    if (size >= 2 * CSOFTMAX_HUGE) madvise((void *)first, end_of_data - first, MADV_FREE);
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
static PyObject *csoftmax_handler;    /* the same as a capsule */

static int csoftmax_prepare_memory(void) {
    csoftmax_handler = PyCapsule_New(&csoftmax_memory, "mem_handler", NULL);
    return csoftmax_handler != NULL ? 0 : -1;
}

static int csoftmax_is_numpys_allocator(void) {
    PyObject *handler = PyDataMem_GetHandler();
    if (handler == NULL) PyErr_Clear();
    Py_XDECREF(handler);
    return handler == PyDataMem_DefaultHandler;
}

/* An array that is not initialized. NULL without an exception where NumPy is to make it. */
static PyObject *csoftmax_kept_array(int axes, npy_intp *shape, int type_number, size_t size) {
    PyObject *array;
    void *data;
    if (!csoftmax_is_numpys_allocator()) return NULL;
    data = csoftmax_take(NULL, size);
    if (data == NULL) return NULL;
    array = PyArray_New(
        &PyArray_Type, axes, shape, type_number, NULL, data, 0, NPY_ARRAY_CARRAY, NULL);
    if (array == NULL) {
        PyErr_Clear();
        free(data);
        return NULL;
    }
    ((PyArrayObject_fields *)array)->mem_handler = Py_NewRef(csoftmax_handler);
    PyArray_ENABLEFLAGS((PyArrayObject *)array, NPY_ARRAY_OWNDATA);
    PyTraceMalloc_Track(389047, (uintptr_t)data, size);    /* np.lib.tracemalloc_domain */
    return array;
}
#else
#define CSOFTMAX_KEEPS_MEMORY 0
static int csoftmax_prepare_memory(void) {
    return 0;
}
static PyObject *csoftmax_kept_array(int axes, npy_intp *shape, int type_number, size_t size) {
    (void)axes, (void)shape, (void)type_number, (void)size;
    return NULL;
}
#endif

/* Scratch memory of calls, not on their stacks: a thread's may be small. One piece is kept for the
   next call, unless nothing shall be, as the C library takes 50 ns to find it. Seen by tracemalloc; needs no GIL. */
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
    if (size <= CSOFTMAX_SPARE && csoftmax_keep_limit > 0)
        scratch = __atomic_exchange_n(&csoftmax_spare, scratch, __ATOMIC_ACQ_REL);
    PyMem_RawFree(scratch);
}

#endif
