"""The table of gufuncs.

`types` has a letter for each operand: f logits and results (a second loop has double in their
place), d double, l int64, ? a mask. A temperature is always double: Dask makes one of a number.

Roles are the places of operands in the signature, logits being 0.
"""

cdef dict TYPE_NUMBERS = {"f": NPY_FLOAT, "d": NPY_DOUBLE, "l": NPY_INT64, "?": NPY_BOOL}

cdef PyUFuncGenericFunction LOOPS[2]
LOOPS[0] = <PyUFuncGenericFunction> float_loop
LOOPS[1] = <PyUFuncGenericFunction> double_loop

cdef PyUFuncGenericFunction ELEMENTWISE_LOOPS[2]
ELEMENTWISE_LOOPS[0] = <PyUFuncGenericFunction> elementwise_float_loop
ELEMENTWISE_LOOPS[1] = <PyUFuncGenericFunction> elementwise_double_loop


cdef struct Functions:
    # Of one type; NULL where an operation has none.
    any_function outcome
    any_function batch
    any_function limit
    any_function block    # instead of these, of a function of single numbers


cdef struct Gufunc:
    Operation operations[2]
    Elementwise elementwise[2]
    void *data[2]
    char types[2 * MAX_OPERANDS]


cdef enum:
    # The numbers of the gufuncs; `directly` needs some of them.
    SOFTMAX, LOG_SOFTMAX, LOGSUMEXP
    MASKED_SOFTMAX, MASKED_LOG_SOFTMAX, MASKED_LOGSUMEXP
    CROSS_ENTROPY, CROSS_ENTROPY_GRAD
    INDEX_LOSS, INDEX_GRAD
    TARGETS_LOSS, TARGETS_GRAD
    SOFTMAX_VJP, LOG_SOFTMAX_VJP
    ENTROPY
    SIGMOID, BINARY_CROSS_ENTROPY, EXP, LOG_1P
    GUFUNCS


cdef Gufunc gufuncs[GUFUNCS]


cdef Functions functions_of(int number, floating type_tag):
    cdef Functions of
    memset(&of, 0, sizeof(of))
    if number == SOFTMAX or number == MASKED_SOFTMAX:
        of.outcome = <any_function> softmax_outcome[floating]
        of.batch = <any_function> softmax_batch[floating]
        of.limit = <any_function> softmax_limit[floating]
    elif number == LOG_SOFTMAX or number == MASKED_LOG_SOFTMAX:
        of.outcome = <any_function> log_softmax_outcome[floating]
        of.batch = <any_function> log_softmax_batch[floating]
        of.limit = <any_function> log_softmax_limit[floating]
    elif number == LOGSUMEXP:
        of.outcome = <any_function> logsumexp_outcome[floating]
        of.batch = <any_function> logsumexp_batch[floating]
    elif number == MASKED_LOGSUMEXP:
        of.outcome = <any_function> masked_logsumexp_outcome[floating]
        of.batch = <any_function> masked_logsumexp_batch[floating]
    elif number == CROSS_ENTROPY:
        of.outcome = <any_function> cross_entropy_outcome[floating]
        of.batch = <any_function> cross_entropy_batch[floating]
        of.limit = <any_function> cross_entropy_limit[floating]
    elif number == CROSS_ENTROPY_GRAD:
        of.outcome = <any_function> cross_entropy_value_and_grad_outcome[floating]
        of.batch = <any_function> cross_entropy_value_and_grad_batch[floating]
        of.limit = <any_function> cross_entropy_value_and_grad_limit[floating]
    elif number == INDEX_LOSS or number == INDEX_GRAD:
        of.outcome = <any_function> index_outcome[floating]
        of.batch = <any_function> index_loss_batch[floating]
        if number == INDEX_GRAD:
            of.batch = <any_function> index_grad_batch[floating]
        of.limit = <any_function> index_limit[floating]
    elif number == TARGETS_LOSS or number == TARGETS_GRAD:
        of.outcome = <any_function> targets_outcome[floating]
        of.batch = <any_function> targets_loss_batch[floating]
        if number == TARGETS_GRAD:
            of.batch = <any_function> targets_grad_batch[floating]
        of.limit = <any_function> targets_limit[floating]
    elif number == SOFTMAX_VJP:
        of.batch = <any_function> softmax_vjp_batch[floating]
    elif number == LOG_SOFTMAX_VJP:
        of.batch = <any_function> log_softmax_vjp_batch[floating]
    elif number == ENTROPY:
        of.outcome = <any_function> entropy_outcome[floating]
        of.batch = <any_function> entropy_batch[floating]
        of.limit = <any_function> entropy_limit[floating]
    elif number == SIGMOID:
        of.block = <any_function> sigmoid_block[floating]
    elif number == BINARY_CROSS_ENTROPY:
        of.block = <any_function> binary_cross_entropy_block[floating]
    elif number == EXP:
        of.block = <any_function> exp_block[floating]
    elif number == LOG_1P:
        of.block = <any_function> log_1p_block[floating]
    return of


cdef void set_types(Gufunc *made, str types):
    cdef int loop, k
    for loop in range(2):
        for k, letter in enumerate(types.replace("f", "d") if loop else types):
            made.types[loop * len(types) + k] = TYPE_NUMBERS[letter]


cdef object new_gufunc(
    int number, const char *name, const char *signature, str types, Numbers numbers, dict roles
):
    cdef Gufunc *made = &gufuncs[number]
    cdef int operands = len(types), results = roles.get("results", 1), loop
    cdef Functions functions
    cdef Operation operation
    for loop in range(2):
        functions = functions_of[double](number, 0) if loop else functions_of[float](number, 0)
        memset(&operation, 0, sizeof(operation))
        operation.outcome = functions.outcome
        operation.batch = functions.batch
        operation.limit = functions.limit
        operation.numbers = numbers
        operation.weighing = roles.get("weighing", NO_DISTANCES)
        operation.temperature = roles.get("temperature", 0)
        operation.target = roles.get("target", 0)
        operation.beside = roles.get("mask", 0) or roles.get("beside", 0)
        operation.is_masked = "mask" in roles
        operation.class_weight = roles.get("class_weight", 0)
        operation.operands = operands
        operation.has_row_result = numbers != NOTHING
        operation.takes_logarithm = numbers != SCALED_EXPONENTIALS or operation.target > 0
        made.operations[loop] = operation
        made.data[loop] = &made.operations[loop]
    set_types(made, types)
    return PyUFunc_FromFuncAndDataAndSignature(
        LOOPS, made.data, made.types, 2, operands - results, results, PyUFunc_None, name, "", 0,
        signature,
    )


cdef object new_elementwise(int number, const char *name, const char *signature, int inputs):
    cdef Gufunc *made = &gufuncs[number]
    cdef int loop
    for loop in range(2):
        made.elementwise[loop].function = (
            functions_of[double](number, 0).block if loop else functions_of[float](number, 0).block
        )
        made.elementwise[loop].inputs = inputs
        made.data[loop] = &made.elementwise[loop]
    set_types(made, "f" * (inputs + 1))
    return PyUFunc_FromFuncAndDataAndSignature(
        ELEMENTWISE_LOOPS, made.data, made.types, 2, inputs, 1, PyUFunc_None, name, "", 0,
        signature,
    )


softmax = new_gufunc(
    SOFTMAX, "softmax", "(n),()->(n)", "fdf", SCALED_EXPONENTIALS, {"temperature": 1}
)
log_softmax = new_gufunc(
    LOG_SOFTMAX, "log_softmax", "(n),()->(n)", "fdf", LOG_PROBABILITIES, {"temperature": 1}
)
logsumexp = new_gufunc(LOGSUMEXP, "logsumexp", "(n)->()", "ff", NOTHING, {})

masked_softmax = new_gufunc(
    MASKED_SOFTMAX, "masked_softmax", "(n),(),(n)->(n)", "fd?f", SCALED_EXPONENTIALS,
    {"temperature": 1, "mask": 2},
)
masked_log_softmax = new_gufunc(
    MASKED_LOG_SOFTMAX, "masked_log_softmax", "(n),(),(n)->(n)", "fd?f", LOG_PROBABILITIES,
    {"temperature": 1, "mask": 2},
)
masked_logsumexp = new_gufunc(
    MASKED_LOGSUMEXP, "masked_logsumexp", "(n),(n)->()", "f?f", NOTHING, {"mask": 1}
)

# logits, target, ignore_index, temperature -> loss
cross_entropy = new_gufunc(
    CROSS_ENTROPY, "cross_entropy", "(n),(),(),()->()", "flldf", NOTHING,
    {"target": 1, "temperature": 3},
)
# logits, target, ignore_index, temperature, weight -> loss, gradient of weight * loss
cross_entropy_value_and_grad = new_gufunc(
    CROSS_ENTROPY_GRAD, "cross_entropy_value_and_grad", "(n),(),(),(),()->(),(n)", "flldd" "ff",
    SCALED_EXPONENTIALS, {"target": 1, "temperature": 3, "results": 2},
)

# The losses of losses.pxi: logits, temperature, share, offset, scale, then target, ignore_index and
# class weights -> loss, gradient of scale * loss
cdef dict INDEX_ROLES = {
    "temperature": 1, "target": 5, "class_weight": 7, "weighing": BY_COEFFICIENTS
}
index_loss = new_gufunc(
    INDEX_LOSS, "index_loss", "(n),(),(),(),(),(),(),(n)->()", "fdddd" "llf" "f", NOTHING,
    INDEX_ROLES,
)
index_loss_and_grad = new_gufunc(
    INDEX_GRAD, "index_loss_and_grad", "(n),(),(),(),(),(),(),(n)->(),(n)", "fdddd" "llf" "ff",
    GRADIENTS, {**INDEX_ROLES, "results": 2},
)
# or targets and class weights
cdef dict TARGETS_ROLES = {
    "temperature": 1, "beside": 5, "class_weight": 6, "weighing": BY_COEFFICIENTS
}
targets_loss = new_gufunc(
    TARGETS_LOSS, "targets_loss", "(n),(),(),(),(),(n),(n)->()", "fdddd" "ff" "f", NOTHING,
    TARGETS_ROLES,
)
targets_loss_and_grad = new_gufunc(
    TARGETS_GRAD, "targets_loss_and_grad", "(n),(),(),(),(),(n),(n)->(),(n)", "fdddd" "ff" "ff",
    GRADIENTS, {**TARGETS_ROLES, "results": 2},
)

# probabilities or their logarithms, temperature, gradient -> gradient of the logits
softmax_vjp = new_gufunc(
    SOFTMAX_VJP, "softmax_vjp", "(n),(),(n)->(n)", "fdff", SOFTMAX_PRODUCTS,
    {"temperature": 1, "beside": 2},
)
log_softmax_vjp = new_gufunc(
    LOG_SOFTMAX_VJP, "log_softmax_vjp", "(n),(),(n)->(n)", "fdff", LOG_SOFTMAX_PRODUCTS,
    {"temperature": 1, "beside": 2},
)
entropy = new_gufunc(
    ENTROPY, "entropy", "(n),()->()", "fdf", NOTHING,
    {"temperature": 1, "weighing": BY_EXPONENTIALS},
)

sigmoid = new_elementwise(SIGMOID, "sigmoid", "(n)->(n)", 1)
# logits, target, weight, pos_weight -> loss
binary_cross_entropy = new_elementwise(
    BINARY_CROSS_ENTROPY, "binary_cross_entropy", "(n),(n),(n),(n)->(n)", 4
)
exp = new_elementwise(EXP, "exp", "(n)->(n)", 1)
log_1p_of = new_elementwise(LOG_1P, "log_1p_of", "(n)->(n)", 1)
