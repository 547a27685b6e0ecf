"""Memory for large results.

The pages of a new large array cost more than a softmax: the kernel clears each of them when it is
first written, twice the time of everything else. So the memory of one large result is kept when
its array is gone, for the next: as ONNX Runtime's arena does. It is marked as free (MADV_FREE): the
kernel takes it whenever it needs some. The arrays are ordinary ones that own their data: NumPy asks
an array's own allocator to free it.
"""

cdef extern from * nogil:
    """
    #if defined(__linux__) && defined(__GNUC__)
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    #define CSOFTMAX_KEEPS_MEMORY 1

    /* A huge page: memory is aligned so, and marked in whole ones, which would be split else. */
    #define CSOFTMAX_HUGE ((size_t)1 << 21)
    #define CSOFTMAX_HEADER 4096
    #define CSOFTMAX_MOST_KEPT ((size_t)1 << 29)

    /* Stands in front of the data, CSOFTMAX_HEADER bytes. */
    typedef struct {
        size_t capacity;
    } csoftmax_block;

    static csoftmax_block *csoftmax_kept_block = NULL;

    static void *csoftmax_keeping_malloc(void *context, size_t size)
    {
        csoftmax_block *block = __atomic_exchange_n(&csoftmax_kept_block, NULL, __ATOMIC_ACQ_REL);
        void *start = block;
        (void)context;
        if (block == NULL || block->capacity < size || block->capacity / 2 > size) {
            free(block);
            if (size > SIZE_MAX / 2
                || posix_memalign(&start, CSOFTMAX_HUGE, size + CSOFTMAX_HEADER)) {
                return NULL;
            }
            block = start;
            block->capacity = size;
            madvise(block, size + CSOFTMAX_HEADER, MADV_HUGEPAGE);
        }
        return (char *)block + CSOFTMAX_HEADER;
    }

    static void *csoftmax_keeping_calloc(void *context, size_t count, size_t size)
    {
        void *data = NULL;
        if (size == 0 || count <= SIZE_MAX / 2 / size) {
            data = csoftmax_keeping_malloc(context, count * size);
        }
        return data == NULL ? NULL : memset(data, 0, count * size);
    }

    static void csoftmax_keeping_free(void *context, void *data, size_t size)
    {
        csoftmax_block *block;
        (void)context;
        (void)size;
        if (data == NULL) {
            return;
        }
        block = (csoftmax_block *)((char *)data - CSOFTMAX_HEADER);
        if (block->capacity <= CSOFTMAX_MOST_KEPT) {
            madvise(
                (char *)block + CSOFTMAX_HUGE,
                (block->capacity / CSOFTMAX_HUGE - 1) * CSOFTMAX_HUGE, MADV_FREE);
            block = __atomic_exchange_n(&csoftmax_kept_block, block, __ATOMIC_ACQ_REL);
        }
        free(block);
    }

    static void *csoftmax_keeping_realloc(void *context, void *data, size_t size)
    {
        size_t old = data == NULL ? 0
            : ((csoftmax_block *)((char *)data - CSOFTMAX_HEADER))->capacity;
        void *moved = csoftmax_keeping_malloc(context, size);
        if (moved != NULL && data != NULL) {
            memcpy(moved, data, old < size ? old : size);
            csoftmax_keeping_free(context, data, old);
        }
        return moved;
    }

    static PyDataMem_Handler csoftmax_memory = {
        "csoftmax", 1, {
            NULL, csoftmax_keeping_malloc, csoftmax_keeping_calloc, csoftmax_keeping_realloc,
            csoftmax_keeping_free,
        },
    };
    #else
    #define CSOFTMAX_KEEPS_MEMORY 0
    static PyDataMem_Handler csoftmax_memory;
    #endif
    """
    bint CSOFTMAX_KEEPS_MEMORY
    PyDataMem_Handler csoftmax_memory


cdef enum:
    LARGE = 16777216    # bytes; the C library itself keeps what is smaller


cdef object memory = PyCapsule_New(&csoftmax_memory, "mem_handler", NULL)


cdef object new_result(int dimensions, npy_intp *shape, int type_number, npy_intp bytes):
    """An array that is not initialized."""
    cdef object numpys_own
    if not CSOFTMAX_KEEPS_MEMORY or bytes < LARGE:
        return PyArray_EMPTY(dimensions, shape, type_number, False)
    numpys_own = PyDataMem_SetHandler(memory)
    try:
        return PyArray_EMPTY(dimensions, shape, type_number, False)
    finally:
        PyDataMem_SetHandler(numpys_own)
