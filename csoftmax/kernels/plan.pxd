# cython: language_level=3
"""Where the rows of a call are: every array as strides over the same rows.

The axes of a call's arrays are those of the classes, which become one, and those of the rows. Of
the latter, neighbours that every array steps through evenly become one, too. What is left are
levels: rows of level 0, the innermost, are a group; the groups are numbered through all levels
above. There may be as many levels as NumPy has dimensions.
"""

from numpy cimport npy_intp


cdef enum:
    MAX_LEVELS = 64    # NumPy's limit for dimensions


cdef enum:
    # The roles of operands.
    LOGITS         # or what is in their place: probabilities, numbers
    COMPANION      # of the logits' shape: a mask, the targets, or a gradient
    RESULT         # of the logits' shape
    TEMPERATURE    # these have one number for each row
    TARGET
    ROW_RESULT
    WEIGHT         # of elementwise losses
    POS_WEIGHT
    ROLES


cdef struct Plan:
    npy_intp n                               # classes
    npy_intp groups
    int levels
    npy_intp shape[MAX_LEVELS]
    # Of each role; strides are in bytes.
    char *data[ROLES]                        # NULL if the call has none
    bint is_number[ROLES]                    # one for all rows
    npy_intp stride[ROLES]                   # from class to class
    npy_intp strides[MAX_LEVELS][ROLES]      # from row to row of a level


cdef inline void start_plan(Plan *plan, int levels, const npy_intp *lengths) noexcept nogil:
    """Of the axes of rows, outermost first; the innermost becomes level 0."""
    cdef int role, level
    plan.n = 1
    plan.levels = levels
    for role in range(ROLES):
        plan.data[role] = NULL
        plan.is_number[role] = False
        plan.stride[role] = 0
        plan.strides[0][role] = 0
    for level in range(levels):
        plan.shape[level] = lengths[levels - 1 - level]
        for role in range(ROLES):
            plan.strides[level][role] = 0


cdef inline bint set_operand(
    Plan *plan, int role, char *data, int ndim, const npy_intp *shape, const npy_intp *strides,
    int axes, const npy_intp *lengths, const bint *is_class
) noexcept nogil:
    """An array that broadcasts to these lengths; False if it doesn't, or if the axes of the classes
    are not steps of one stride.

    `is_class` says which axes are the classes'; NULL of an array without them.
    """
    cdef int missing = axes - ndim, level = 0, i
    cdef npy_intp stride, classes = 1
    if missing < 0:
        return False
    plan.data[role] = data
    for i in range(axes - 1, -1, -1):
        stride = 0
        if i >= missing and shape[i - missing] != 1:
            if shape[i - missing] != lengths[i]:
                return False
            stride = strides[i - missing]
        if is_class == NULL or not is_class[i]:
            plan.strides[level][role] = stride
            level += 1
        elif lengths[i] != 1:
            if classes == 1:
                plan.stride[role] = stride
            elif stride != classes * plan.stride[role]:
                return False
            classes *= lengths[i]
    if is_class != NULL:
        plan.n = classes
    return True


cdef inline void set_number(Plan *plan, int role, void *number) noexcept nogil:
    """One for all rows."""
    plan.data[role] = <char *> number
    plan.is_number[role] = True


cdef inline npy_intp distance_between_rows(const Plan *plan, int level) noexcept nogil:
    """In memory, of the logits; where one stands for all, of the results."""
    cdef npy_intp stride = plan.strides[level][LOGITS]
    if stride == 0:
        stride = plan.strides[level][RESULT]
    return stride if stride > 0 else -stride


cdef inline void swap_levels(Plan *plan, int a, int b) noexcept nogil:
    cdef int role
    plan.shape[a], plan.shape[b] = plan.shape[b], plan.shape[a]
    for role in range(ROLES):
        plan.strides[a][role], plan.strides[b][role] = (
            plan.strides[b][role], plan.strides[a][role]
        )


cdef inline bint is_one_level(const Plan *plan, int inner, int outer) noexcept nogil:
    cdef int role
    for role in range(ROLES):
        if plan.strides[outer][role] != plan.shape[inner] * plan.strides[inner][role]:
            return False
    return True


cdef inline void collapse(Plan *plan) noexcept nogil:
    """Levels in the order of memory, neighbours as one where every operand allows it."""
    cdef int level, last = 0, role
    for level in range(plan.levels):    # those of length 1 go
        if plan.shape[level] != 1:
            if level != last:
                swap_levels(plan, level, last)
            last += 1
    plan.levels = last
    if plan.levels == 0:    # one row
        plan.levels = 1
        plan.shape[0] = 1
        for role in range(ROLES):
            plan.strides[0][role] = 0
    for level in range(1, plan.levels):
        last = level
        while last > 0 and (
            distance_between_rows(plan, last) < distance_between_rows(plan, last - 1)
        ):
            swap_levels(plan, last, last - 1)
            last -= 1
    last = 0
    for level in range(1, plan.levels):
        if is_one_level(plan, last, level):
            plan.shape[last] *= plan.shape[level]
        else:
            last += 1
            if level != last:
                swap_levels(plan, level, last)
    plan.levels = last + 1
    plan.groups = 1
    for level in range(1, plan.levels):
        plan.groups *= plan.shape[level]


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
