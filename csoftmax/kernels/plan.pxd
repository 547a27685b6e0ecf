# cython: language_level=3
"""Where the rows of a call are: every array as strides over the same rows.

The axes of a call's arrays are those of the classes, which become one, and those of the rows. Of
the latter, neighbours that every array steps through evenly become one, too. What is left are
levels: rows of level 0, the innermost, are a group; the groups are numbered through all levels
above. There may be as many levels as NumPy has dimensions.
"""

from libc.string cimport memset
from numpy cimport ndarray, npy_intp


cdef enum:
    MAX_LEVELS = 64    # NumPy's limit for dimensions


cdef enum:
    # The roles of operands.
    LOGITS         # or what is in their place: probabilities, numbers
    COMPANION      # of the logits' shape: targets, a gradient, weights, or other logits
    RESULT         # of the logits' shape
    HESSIAN        # a second result of the logits' shape
    OF_CLASSES     # the roles up to here have a number for each of a row's classes
    MASK = OF_CLASSES    # and so has this one, of bytes
    POS_WEIGHT     # of elementwise losses
    WEIGHT         # these have one number for each row
    TEMPERATURE
    TARGET
    ROW_RESULT
    SIGN           # a second result for each row
    ROLES
    # Of selections, which have neither weights nor targets; several for each row.
    UNIFORMS = WEIGHT    # numbers from [0, 1)
    CLASSES = TARGET     # the result


cdef enum Function:
    SOFTMAX
    LOG_SOFTMAX
    SOFTMAX_AND_LOGSUMEXP
    LOGSUMEXP
    WEIGHTED_LOGSUMEXP
    ENTROPY
    CLASS_LOSS      # targets are class indices, and no other class counts
    INDEX_LOSS      # or all do, by label smoothing
    TARGETS_LOSS    # targets are probabilities
    NLL_LOSS        # of log-probabilities
    KL_DIVERGENCE
    SOFTMAX_VJP
    LOG_SOFTMAX_VJP
    TOP_LOG_PROBS
    SAMPLE
    # of single numbers
    SIGMOID
    LOG_SIGMOID
    BINARY_CROSS_ENTROPY             # its results are of rows, as those of other losses
    BINARY_CROSS_ENTROPY_AND_GRAD


cdef struct Axes:
    # Of an array as a caller sees it.
    int count
    npy_intp lengths[MAX_LEVELS]
    bint is_class[MAX_LEVELS]


cdef struct Plan:
    npy_intp n                               # classes
    npy_intp rows
    npy_intp groups
    int levels
    npy_intp shape[MAX_LEVELS]
    # Of each role; strides are in bytes.
    char *data[ROLES]                        # NULL if the call has none
    bint is_number[ROLES]                    # one for all rows
    npy_intp stride[ROLES]                   # from class to class
    npy_intp strides[MAX_LEVELS][ROLES]      # from row to row of a level


cdef inline void start_plan(Plan *plan, const Axes *axes, Axes *row_axes) noexcept nogil:
    """Without operands. Level 0 is the last axis of rows; those of length 1 are none."""
    cdef int i
    row_axes.count = 0
    for i in range(axes.count):
        if not axes.is_class[i]:
            row_axes.lengths[row_axes.count] = axes.lengths[i]
            row_axes.is_class[row_axes.count] = False
            row_axes.count += 1
    plan.n = plan.rows = 1
    plan.levels = 0
    memset(plan.data, 0, sizeof(plan.data))
    memset(plan.stride, 0, sizeof(plan.stride))
    plan.shape[0] = 1    # of a single row
    memset(plan.strides, 0, max(axes.count, 1) * sizeof(plan.strides[0]))
    for i in range(axes.count - 1, -1, -1):
        if axes.is_class[i]:
            plan.n *= axes.lengths[i]
        elif axes.lengths[i] != 1:
            plan.rows *= axes.lengths[i]
            plan.shape[plan.levels] = axes.lengths[i]
            plan.levels += 1
    plan.levels = max(plan.levels, 1)


cdef inline bint set_operand(Plan *plan, int role, ndarray x, const Axes *axes) noexcept:
    """An array that broadcasts to these axes, the plan's or those of its rows. False if it doesn't,
    or if the axes of the classes are not steps of one stride."""
    cdef int missing = axes.count - x.ndim, level = 0, i
    cdef npy_intp stride, classes = 1
    if missing < 0:
        return False
    plan.data[role] = x.data
    plan.is_number[role] = x.ndim == 0
    for i in range(axes.count - 1, -1, -1):
        stride = 0
        if i >= missing and x.shape[i - missing] != 1:
            if x.shape[i - missing] != axes.lengths[i]:
                return False
            stride = x.strides[i - missing]
        if axes.lengths[i] == 1:
            continue
        if not axes.is_class[i]:
            plan.strides[level][role] = stride
            level += 1
        elif classes == 1:
            plan.stride[role] = stride
            classes = axes.lengths[i]
        elif stride == classes * plan.stride[role]:
            classes *= axes.lengths[i]
        else:
            return False
    return True


cdef inline npy_intp row_distance(const Plan *plan, int level) noexcept nogil:
    """In memory, of the logits; where one stands for all, of the results."""
    cdef npy_intp stride = plan.strides[level][LOGITS]
    if stride == 0:
        stride = plan.strides[level][RESULT]
    return stride if stride > 0 else -stride


cdef inline void swap_levels(Plan *plan, int a, int b) noexcept nogil:
    cdef int role
    plan.shape[a], plan.shape[b] = plan.shape[b], plan.shape[a]
    for role in range(ROLES):
        plan.strides[a][role], plan.strides[b][role] = plan.strides[b][role], plan.strides[a][role]


cdef inline bint is_one_level(const Plan *plan, int inner, int outer) noexcept nogil:
    cdef int role
    for role in range(ROLES):
        if plan.strides[outer][role] != plan.shape[inner] * plan.strides[inner][role]:
            return False
    return True


cdef inline void collapse(Plan *plan) noexcept nogil:
    """Levels in the order of memory, neighbours as one where every operand allows it. There must be
    rows."""
    cdef int level, place, last = 0
    for level in range(1, plan.levels):
        place = level
        while place > 0 and row_distance(plan, place) < row_distance(plan, place - 1):
            swap_levels(plan, place, place - 1)
            place -= 1
    for level in range(1, plan.levels):
        if is_one_level(plan, last, level):
            plan.shape[last] *= plan.shape[level]
        else:
            last += 1
            swap_levels(plan, level, last)
    plan.levels = last + 1
    plan.groups = plan.rows // plan.shape[0]


cdef inline void locate(
    const Plan *plan, npy_intp group, npy_intp row, char **places
) noexcept nogil:
    """A row of a group: for each role the address of its first number, or NULL."""
    cdef npy_intp index
    cdef int level, role
    for role in range(ROLES):
        places[role] = plan.data[role] + row * plan.strides[0][role]
    for level in range(1, plan.levels):
        index = group
        if level + 1 < plan.levels:    # a division takes as long as a row of few classes
            index = group % plan.shape[level]
            group = group // plan.shape[level]
        for role in range(ROLES):
            places[role] += index * plan.strides[level][role]
