"""The whole of one build: each instruction set's module consists of this."""

from cython cimport floating
from cpython.mem cimport PyMem_RawFree
from libc.math cimport INFINITY, NAN, fabs, floor, frexp, ldexp, rint
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from numpy cimport npy_intp

from csoftmax.kernels.arithmetic cimport (
    GENERAL, LN2_HI_DOUBLE, LN2_LO_DOUBLE, LOG2_E, PLAIN, DoubleBits, DoubleDouble, ExpParams,
    FloatBits, dd_add, dd_mul, exact_fma, exp_dd, exp_params, exponential, from_double,
    largest_unshifted, log_1p, power_of_two, two_sum,
)
from csoftmax.kernels.formulas cimport (
    WeightedSums, binary_cross_entropy_of, from_higher, is_finite, sigmoid_of, sum_of_exponentials,
)
from csoftmax.kernels.functions cimport (
    set_entropy, set_log_softmax, set_logsumexp, set_loss, set_softmax, set_vjp, sum_of_row,
    take_largest_out, use_sums_of_others, weighted_sums_of_row,
)
from csoftmax.kernels.lanes cimport (
    FLOAT_LANES, LANE_BYTES, LaneSums, add_term, clear, finished, whole_lanes,
)
from csoftmax.kernels.passes cimport (
    BY_EXPONENTIALS, BY_OFFSETS, BY_TARGETS, COLUMNS, GRADS, GRADS_OF_OFFSETS, LOG_PROBABILITIES,
    LOG_PROBABILITY_GRADS, LOG_SOFTMAX_VJPS, MAX_ROWS, NO_VALUES, NOTHING_WEIGHED, OTHERS,
    OTHERS_KEPT, PROBABILITIES, PROBABILITY_GRADS, ROWS, SOFTMAX_VJPS, Layout, Tile, Values, View,
    Weighing, find_maxima_of_columns, find_maxima_of_rows, in_type_of, lanes_of, set_params,
    sum_exponentials, weigh, write,
)
from csoftmax.kernels.plan cimport (
    COMPANION, LOGITS, RESULT, ROLES, ROW_RESULT, TARGET, TEMPERATURE, Plan, locate,
)
from csoftmax.kernels.stops cimport NUMBERS_PER_SHARE, is_stopped, must_stop, scratch_memory
from csoftmax.kernels.threads cimport Work, share, threads_for

include "copies.pxi"
include "engine.pxi"
include "elementwise.pxi"
include "entry.pxi"
