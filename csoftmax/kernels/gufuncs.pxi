"""The table of gufuncs."""


# The gufuncs. `types` has a letter for each operand: f logits and results (a second loop has double
# in their place), d double, l int64. A temperature is always double: Dask makes one of a number.

cdef struct Gufunc:
    Operation operations[2]
    void *data[2]
    char types[2 * MAX_OPERANDS]


cdef PyUFuncGenericFunction LOOPS[2]
LOOPS[0] = <PyUFuncGenericFunction> float_loop
LOOPS[1] = <PyUFuncGenericFunction> double_loop

cdef dict TYPE_NUMBERS = {"f": NPY_FLOAT, "d": NPY_DOUBLE, "l": NPY_INT64}


cdef Operation softmax_operation(floating type_tag):
    cdef Operation operation
    memset(&operation, 0, sizeof(operation))
    operation.outcome = <any_function> softmax_outcome[floating]
    operation.batch = <any_function> softmax_batch[floating]
    operation.limit = <any_function> softmax_limit[floating]
    operation.numbers = SCALED_EXPONENTIALS
    operation.temperature = 1
    return operation


cdef Operation log_softmax_operation(floating type_tag):
    cdef Operation operation
    memset(&operation, 0, sizeof(operation))
    operation.outcome = <any_function> log_softmax_outcome[floating]
    operation.batch = <any_function> log_softmax_batch[floating]
    operation.limit = <any_function> log_softmax_limit[floating]
    operation.numbers = LOG_PROBABILITIES
    operation.temperature = 1
    operation.takes_logarithm = True
    return operation


cdef Operation logsumexp_operation(floating type_tag):
    cdef Operation operation
    memset(&operation, 0, sizeof(operation))
    operation.outcome = <any_function> logsumexp_outcome[floating]
    operation.batch = <any_function> logsumexp_batch[floating]
    operation.numbers = NOTHING
    operation.takes_logarithm = True
    return operation


cdef Operation cross_entropy_operation(floating type_tag):
    cdef Operation operation
    memset(&operation, 0, sizeof(operation))
    operation.outcome = <any_function> cross_entropy_outcome[floating]
    operation.batch = <any_function> cross_entropy_batch[floating]
    operation.limit = <any_function> cross_entropy_limit[floating]
    operation.numbers = NOTHING
    operation.target = 1
    operation.temperature = 3
    operation.takes_logarithm = True
    return operation


cdef Operation cross_entropy_value_and_grad_operation(floating type_tag):
    cdef Operation operation
    memset(&operation, 0, sizeof(operation))
    operation.outcome = <any_function> cross_entropy_value_and_grad_outcome[floating]
    operation.batch = <any_function> cross_entropy_value_and_grad_batch[floating]
    operation.limit = <any_function> cross_entropy_value_and_grad_limit[floating]
    operation.numbers = SCALED_EXPONENTIALS
    operation.target = 1
    operation.temperature = 3
    operation.takes_logarithm = True
    return operation


cdef Operation exp_operation(floating type_tag):
    cdef Operation operation
    memset(&operation, 0, sizeof(operation))
    operation.elementwise = <any_function> exp_elementwise[floating]
    operation.numbers = SCALED_EXPONENTIALS
    return operation


cdef Operation log_1p_operation(floating type_tag):
    cdef Operation operation
    memset(&operation, 0, sizeof(operation))
    operation.elementwise = <any_function> log_1p_elementwise[floating]
    operation.numbers = SCALED_EXPONENTIALS
    return operation


cdef object new_gufunc(
    Gufunc *made, const char *name, const char *signature, str types, int results,
    Operation of_floats, Operation of_doubles,
):
    cdef int operands = len(types), loop, k
    made.operations[0] = of_floats
    made.operations[1] = of_doubles
    for loop in range(2):
        made.operations[loop].operands = operands
        made.operations[loop].has_row_result = made.operations[loop].numbers != NOTHING
        made.data[loop] = &made.operations[loop]
        for k, letter in enumerate(types.replace("f", "d") if loop else types):
            made.types[loop * operands + k] = TYPE_NUMBERS[letter]
    return PyUFunc_FromFuncAndDataAndSignature(
        LOOPS, made.data, made.types, 2, operands - results, results, PyUFunc_None,
        name, "", 0, signature,
    )


cdef Gufunc gufuncs[7]

SOFTMAX, LOG_SOFTMAX = 0, 1

softmax = new_gufunc(
    &gufuncs[0], "softmax", "(n),()->(n)", "fdf", 1, softmax_operation[float](0),
    softmax_operation[double](0),
)
log_softmax = new_gufunc(
    &gufuncs[1], "log_softmax", "(n),()->(n)", "fdf", 1, log_softmax_operation[float](0),
    log_softmax_operation[double](0),
)
logsumexp = new_gufunc(
    &gufuncs[2], "logsumexp", "(n)->()", "ff", 1, logsumexp_operation[float](0),
    logsumexp_operation[double](0),
)
# logits, target, ignore_index, temperature -> loss
cross_entropy = new_gufunc(
    &gufuncs[3], "cross_entropy", "(n),(),(),()->()", "flldf", 1, cross_entropy_operation[float](0),
    cross_entropy_operation[double](0),
)
# logits, target, ignore_index, temperature, weight -> loss, gradient of weight * loss
cross_entropy_value_and_grad = new_gufunc(
    &gufuncs[4], "cross_entropy_value_and_grad", "(n),(),(),(),()->(),(n)", "flldd" + "ff", 2,
    cross_entropy_value_and_grad_operation[float](0),
    cross_entropy_value_and_grad_operation[double](0),
)
exp = new_gufunc(
    &gufuncs[5], "exp", "(n)->(n)", "ff", 1, exp_operation[float](0), exp_operation[double](0)
)
log_1p_of = new_gufunc(
    &gufuncs[6], "log_1p_of", "(n)->(n)", "ff", 1, log_1p_operation[float](0),
    log_1p_operation[double](0),
)
