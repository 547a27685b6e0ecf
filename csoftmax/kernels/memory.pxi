"""Memory for large results.

The pages of a new large array cost more than a softmax: the kernel clears each of them when it is
first written, twice the time of everything else. The C library keeps some of what is freed, but may
give it back after each call: 15 times the time was seen for a gradient of 4 MB. So the memory of
large results is kept when their arrays are gone, one for each power of two, for the next: as ONNX
Runtime's arena does. From 4 MB on it is marked as free (MADV_FREE): the kernel takes it whenever it
needs some. The arrays are ordinary ones that own their data: NumPy asks an array's own allocator to
free it.
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
    #define CSOFTMAX_LEAST_KEPT ((size_t)1 << 20)
    #define CSOFTMAX_MOST_KEPT ((size_t)1 << 29)
    #define CSOFTMAX_SIZES 10

    /* Stands in front of the data, CSOFTMAX_HEADER bytes. */
    typedef struct {
        size_t capacity;
    } csoftmax_block;

    /* From 2^i LEAST_KEPT on, up to twice that. */
    static csoftmax_block *csoftmax_kept[CSOFTMAX_SIZES];

    static csoftmax_block *csoftmax_swap(int i, csoftmax_block *block)
    {
        return __atomic_exchange_n(&csoftmax_kept[i], block, __ATOMIC_ACQ_REL);
    }

    static int csoftmax_place(size_t size)
    {
        int i = 0;
        while (i < CSOFTMAX_SIZES - 1 && size >= CSOFTMAX_LEAST_KEPT << (i + 1)) {
            i++;
        }
        return i;
    }

    /* One that is large enough, and less than half of it would be left over; or NULL. */
    static csoftmax_block *csoftmax_take(int i, size_t size)
    {
        csoftmax_block *block = i < CSOFTMAX_SIZES ? csoftmax_swap(i, NULL) : NULL;
        if (block != NULL && block->capacity / 2 > size) {
            free(csoftmax_swap(i, block));
            return NULL;
        }
        if (block != NULL && block->capacity < size) {
            free(block);
            return NULL;
        }
        return block;
    }

    static void *csoftmax_keeping_malloc(void *context, size_t size)
    {
        csoftmax_block *block = csoftmax_take(csoftmax_place(size), size);
        void *start;
        (void)context;
        if (block == NULL) {
            block = csoftmax_take(csoftmax_place(size) + 1, size);
        }
        if (block == NULL) {
            if (size > SIZE_MAX / 2
                || posix_memalign(&start, CSOFTMAX_HUGE, size + CSOFTMAX_HEADER)) {
                return NULL;
            }
            block = start;
            block->capacity = size;
            if (size >= 2 * CSOFTMAX_HUGE) {
                madvise(block, size + CSOFTMAX_HEADER, MADV_HUGEPAGE);
            }
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
            if (block->capacity >= 2 * CSOFTMAX_HUGE) {
                madvise(
                    (char *)block + CSOFTMAX_HUGE,
                    (block->capacity / CSOFTMAX_HUGE - 1) * CSOFTMAX_HUGE, MADV_FREE);
            }
            block = csoftmax_swap(csoftmax_place(block->capacity), block);
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
    #define CSOFTMAX_LEAST_KEPT 0
    static PyDataMem_Handler csoftmax_memory;
    #endif
    """
    bint CSOFTMAX_KEEPS_MEMORY
    const size_t CSOFTMAX_LEAST_KEPT
    PyDataMem_Handler csoftmax_memory


cdef object memory = PyCapsule_New(&csoftmax_memory, "mem_handler", NULL)


cdef object new_result(int dimensions, npy_intp *shape, int type_number, npy_intp bytes):
    """An array that is not initialized."""
    cdef object numpys_own
    if not CSOFTMAX_KEEPS_MEMORY or bytes < <npy_intp> CSOFTMAX_LEAST_KEPT:
        return PyArray_EMPTY(dimensions, shape, type_number, False)
    numpys_own = PyDataMem_SetHandler(memory)
    try:
        return PyArray_EMPTY(dimensions, shape, type_number, False)
    finally:
        PyDataMem_SetHandler(numpys_own)
