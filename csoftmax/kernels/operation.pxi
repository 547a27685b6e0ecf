"""What is computed from rows, and what belongs to a row beside its elements."""


cdef enum Function:
    SOFTMAX
    LOG_SOFTMAX
    LOGSUMEXP
    ENTROPY
    CLASS_LOSS      # targets are class indices, and no other class counts
    INDEX_LOSS      # or all do, by label smoothing
    TARGETS_LOSS    # targets are probabilities
    NLL_LOSS        # of log-probabilities
    SOFTMAX_VJP
    LOG_SOFTMAX_VJP
    # of single numbers
    SIGMOID
    BINARY_CROSS_ENTROPY
    EXP
    LOG_1P


cdef enum Numbers:
    # What a function makes of each number of a row.
    NOTHING
    SCALED_EXPONENTIALS
    LOG_PROBABILITIES
    GRADIENTS               # scaled exponentials less the coefficients of the loss
    SOFTMAX_PRODUCTS        # of vector-Jacobian products; x are probabilities then,
    LOG_SOFTMAX_PRODUCTS    # or their logarithms


cdef enum Weighing:
    # What the distances from the maximum are weighed by.
    NO_DISTANCES
    BY_COEFFICIENTS
    BY_EXPONENTIALS


cdef struct Operation:
    Function function
    Numbers numbers
    Weighing weighing
    bint is_masked
    bint has_companion      # a second array of numbers beside the logits: targets or a gradient
    bint takes_logarithm    # of a sum: then the maximum is set apart


cdef struct LossTerms:
    # Of a whole call.
    int64_t ignore_index
    double share            # of the target: 1 - label_smoothing
    double offset           # of every class: label_smoothing / C
    double scale            # of the gradient: 1 / what "mean" divides by
    const char *class_weights    # contiguous; NULL where all are 1, and only the target's counts


cdef struct RowOperands:
    # One number of each row; strides, in bytes, lead to the next row.
    char *temperature       # double
    char *target            # int64, a class index
    char *result            # floating: a loss, a logarithm or an entropy
    npy_intp temperature_stride
    npy_intp target_stride
    npy_intp result_stride
    const LossTerms *loss


cdef inline double temperature_of(const RowOperands *operands, npy_intp r) noexcept nogil:
    return (<double *> (operands.temperature + r * operands.temperature_stride))[0]


cdef inline int64_t target_of(const RowOperands *operands, npy_intp r) noexcept nogil:
    return (<int64_t *> (operands.target + r * operands.target_stride))[0]


cdef inline int64_t counted_target(
    const RowOperands *operands, npy_intp r, npy_intp n
) noexcept nogil:
    """A class; or -1 where the row doesn't count: also where another thread has changed the index
    since it was checked."""
    cdef int64_t target = target_of(operands, r)
    return target if target != operands.loss.ignore_index and 0 <= target < n else -1


cdef inline void set_result(
    const RowOperands *operands, npy_intp r, double result, floating type_tag
) noexcept nogil:
    """NaN is one NaN: which one an operation keeps depends on the copy that was made of a loop."""
    if result != result:
        result = NAN
    (<floating *> (operands.result + r * operands.result_stride))[0] = <floating> result
