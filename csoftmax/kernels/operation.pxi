"""What describes a function to the loops, and what it tells them of a row."""


ctypedef void (*any_function)() noexcept nogil


cdef enum Numbers:
    # What a function makes of each number of a row.
    NOTHING
    SCALED_EXPONENTIALS
    LOG_PROBABILITIES
    GRADIENTS           # scaled exponentials less the coefficients of the loss
    SOFTMAX_PRODUCTS    # of vector-Jacobian products; x are probabilities then,
    LOG_SOFTMAX_PRODUCTS    # or their logarithms


cdef enum Weighing:
    # What the distances from the maximum are weighed by.
    NO_DISTANCES
    BY_COEFFICIENTS
    BY_EXPONENTIALS


cdef struct Operation:
    any_function outcome       # functions of operations.pxi or losses.pxi, for one of the types
    any_function batch
    any_function limit
    Numbers numbers
    Weighing weighing
    # Which operand of the gufunc has that role, 0 for none.
    int target                 # class index; ignore_index is the next
    int temperature
    int beside                 # a row beside x, of numbers, or a mask
    int class_weight           # a number for each class
    int operands               # of the gufunc: logits, others, results
    bint is_masked
    bint has_row_result        # the last one is a row, not a number
    bint takes_logarithm       # of a sum: then the maximum is set apart
