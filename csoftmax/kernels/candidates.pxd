# cython: language_level=3
"""Which classes of a row are the most probable, and which one a uniform number draws.

Classes are in the order of their logits, of equal ones the first class first. Rows are not sorted,
and most of a row is read but twice. Numbers are taken in groups: where k classes are wanted, none
is smaller than the k-th largest of the groups' maxima. What is not smaller than such a bound is
copied: the candidates, often few more than k. Where these have to end is found by their keys,
integers in the order of logits: weights of candidates with equal leading bits are added up in bins,
and the bin within which it is enough is looked into again.

A draw inverts the distribution function: over candidates, or, where all classes may be drawn, over
sums of blocks of exponentials, of which one block is computed again. These sums are in double, in
an order that depends on the row alone.
"""

from cython cimport floating
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset
from numpy cimport npy_intp

from csoftmax.kernels.arithmetic cimport (
    GENERAL, DoubleBits, ExpParams, FloatBits, Kind, exponential, value_or_zero,
)
from csoftmax.kernels.copies cimport FEW
from csoftmax.kernels.lanes cimport (
    FLOAT_LANES, LANE_BYTES, LaneSums, clear, larger, sum_of_lanes, whole_lanes,
)
from csoftmax.kernels.stops cimport must_stop


cdef extern from * nogil:
    """
    /* More than any memory has, and times the number of threads still no overflow. */
    #define MOST_PLACES ((Py_ssize_t) 1 << 40)
    #define TOO_MANY_BYTES ((Py_ssize_t) 1 << 50)
    """
    const Py_ssize_t MOST_PLACES, TOO_MANY_BYTES


cdef extern from "platform.h" nogil:
    int lowest_bit "csoftmax_lowest_bit"(unsigned int number)    # of one that is not 0
    int highest_bit "csoftmax_highest_bit"(uint64_t number)


cdef enum:
    # Chunks of a long row are whole groups and whole blocks, the last one but for its end.
    MOST_VECTORS = 128    # of which a group has a lane of each
    GROUPS_PER_CLASS = 3    # that is wanted, at least
    BLOCK = 512          # exponentials that are added up by themselves
    BITS_OF_BINS = 11
    FEW_KEYS = 16        # are sorted
    FEW_CANDIDATES = 64  # are compared with each other


cdef struct Selection:
    # What a call asks for of all rows.
    npy_intp most        # classes
    double top_p
    double log_min_p     # -inf where there is none
    npy_intp draws


cdef struct Candidates:
    # Of a row, in the order of classes, and what else is found on the way.
    npy_intp count
    npy_intp room        # for so many
    void *logits         # in their type
    int64_t *classes
    double *weights      # exponentials, or their sums up to each; or sums of blocks of all classes
    void *maxima         # of groups
    npy_intp groups
    npy_intp vectors     # of a group
    # Places to work at, also for copies of the logits of a row that is in columns.
    void *given
    void *changed
    uint64_t *keys
    uint64_t *other_keys
    int64_t *other_classes
    double *bins


cdef struct Cut:
    # After which class of a row the most probable ones end.
    uint64_t key         # what has a larger key is before it,
    npy_intp equal       # and so many of those that have this one


# Where everything is

cdef inline int bit_length(uint64_t number) noexcept nogil:
    return highest_bit(number) + 1 if number else 0


cdef inline int bits_of_bins(npy_intp count) noexcept nogil:
    """As many bins as keys, or up to twice as many."""
    return max(1, min(BITS_OF_BINS, bit_length(count)))


cdef inline bint are_groups_enough(npy_intp groups, npy_intp most) noexcept nogil:
    """For a bound that leaves out a good part of a row."""
    return groups >= 2 * most


cdef inline Candidates candidates_of(
    npy_intp n, const Selection *selection, floating type_tag
) noexcept nogil:
    """Of a row of n classes: the groups, and how many candidates there can be. Fewer than `most`
    groups have a maximum above the bound, so at most (most - 1) * vectors logits are above it; of
    those that lie at it `most` are enough."""
    cdef npy_intp LANES = LANE_BYTES // <npy_intp> sizeof(floating), most = selection.most
    cdef npy_intp vectors = MOST_VECTORS
    cdef Candidates candidates
    while vectors > 2 and most < n and n < GROUPS_PER_CLASS * most * vectors:
        vectors //= 2
    memset(&candidates, 0, sizeof(Candidates))
    candidates.vectors = vectors
    candidates.groups = (n + LANES * vectors - 1) // (LANES * vectors) * LANES
    candidates.room = n
    if most < n and are_groups_enough(candidates.groups, most):
        candidates.room = min(n, most * (vectors + 1))
    elif are_all_drawn(selection, n):
        candidates.room = n if are_all_stored(selection, n) else max(blocks_of_row(n), BLOCK)
    return candidates


cdef inline bint are_all_drawn(const Selection *selection, npy_intp n) noexcept nogil:
    """Without any filter."""
    return (
        selection.draws > 0 and selection.most >= n
        and selection.top_p == 1 and selection.log_min_p == -INFINITY
    )


cdef inline npy_intp blocks_of_row(npy_intp n) noexcept nogil:
    return (n + BLOCK - 1) // BLOCK


cdef inline bint are_all_stored(const Selection *selection, npy_intp n) noexcept nogil:
    """The sums up to each class: where as much would be computed for the draws."""
    return selection.draws > n // BLOCK


cdef inline npy_intp places_of(const Candidates *candidates, floating type_tag) noexcept nogil:
    """In arrays that have the groups' keys, too."""
    return whole_lanes[floating](max(candidates.room, candidates.groups), 0)


cdef inline npy_intp copied_numbers(npy_intp n) noexcept nogil:
    return n if n <= FEW else 0


cdef inline npy_intp bytes_of_candidates(
    npy_intp n, const Selection *selection, floating type_tag
) noexcept nogil:
    cdef Candidates candidates = candidates_of[floating](n, selection, 0)
    cdef npy_intp count = places_of[floating](&candidates, 0)
    if count > MOST_PLACES:
        return TOO_MANY_BYTES
    return count * (
        sizeof(floating) + sizeof(double) + 2 * sizeof(uint64_t) + 2 * sizeof(int64_t)
    ) + (sizeof(double) << bits_of_bins(count)) + sizeof(floating) * (
        candidates.groups + 2 * copied_numbers(n)
    )


cdef inline Candidates candidates_at(
    char *place, npy_intp n, const Selection *selection, floating type_tag
) noexcept nogil:
    cdef Candidates candidates = candidates_of[floating](n, selection, 0)
    cdef npy_intp count = places_of[floating](&candidates, 0)
    candidates.weights = <double *> place
    candidates.bins = candidates.weights + count
    candidates.keys = <uint64_t *> (candidates.bins + (<npy_intp> 1 << bits_of_bins(count)))
    candidates.other_keys = candidates.keys + count
    candidates.classes = <int64_t *> (candidates.other_keys + count)
    candidates.other_classes = candidates.classes + count
    candidates.logits = candidates.other_classes + count
    candidates.maxima = <floating *> candidates.logits + count
    candidates.given = <floating *> candidates.maxima + candidates.groups
    candidates.changed = <floating *> candidates.given + copied_numbers(n)
    return candidates


# Keys

cdef inline uint64_t key_of(floating x) noexcept nogil:
    """Integers in the order of numbers; -0 has that of 0."""
    cdef FloatBits f
    cdef DoubleBits d
    if floating is float:
        f.value = x + 0
        f.bits ^= (0 - (f.bits >> 31)) | <unsigned int> 1 << 31
        return f.bits
    else:
        d.value = x + 0
        d.bits ^= (0 - (d.bits >> 63)) | <uint64_t> 1 << 63
        return d.bits


cdef inline floating number_of_key(uint64_t key, floating type_tag) noexcept nogil:
    cdef FloatBits f
    cdef DoubleBits d
    if floating is float:
        f.bits = <unsigned int> key
        f.bits ^= ((f.bits >> 31) - 1) | <unsigned int> 1 << 31
        return f.value
    else:
        d.bits = key
        d.bits ^= ((d.bits >> 63) - 1) | <uint64_t> 1 << 63
        return d.value


cdef inline void sort_few(uint64_t *keys, double *weights, npy_intp count) noexcept nogil:
    """The largest first."""
    cdef npy_intp i, place
    cdef uint64_t key
    cdef double weight
    for i in range(1, count):
        key, weight = keys[i], weights[i]
        place = i
        while place > 0 and keys[place - 1] < key:
            keys[place], weights[place] = keys[place - 1], weights[place - 1]
            place -= 1
        keys[place], weights[place] = key, weight


cdef inline Cut find_cut(
    Candidates *room, const floating *logits, const double *weights, npy_intp count, double wanted
) noexcept nogil:
    """Where the sum of the weights, of each 1 if they are NULL, reaches what is wanted. Equal logits
    have equal weights, but at temperature 0, where one is enough."""
    cdef uint64_t *keys = room.keys
    cdef double *left = <double *> room.other_keys
    cdef double *bins = room.bins
    cdef double above = 0
    cdef uint64_t lowest, highest, key
    cdef npy_intp i, kept, bin
    cdef int shift
    cdef Cut cut
    for i in range(count):
        keys[i] = key_of(logits[i])
        left[i] = 1 if weights == NULL else weights[i]
    while count > FEW_KEYS:
        lowest = highest = keys[0]
        for i in range(1, count):
            lowest = min(lowest, keys[i])
            highest = max(highest, keys[i])
        if lowest == highest:
            break
        shift = max(0, bit_length(highest - lowest) - bits_of_bins(count))
        bin = <npy_intp> ((highest - lowest) >> shift)
        for i in range(bin + 1):
            bins[i] = 0
        for i in range(count):
            bins[(keys[i] - lowest) >> shift] += left[i]
        while bin > 0 and above + bins[bin] < wanted:
            above += bins[bin]
            bin -= 1
        kept = 0
        for i in range(count):
            key = keys[i]
            keys[kept], left[kept] = key, left[i]
            kept += <npy_intp> ((key - lowest) >> shift) == bin
        count = kept
    if count <= FEW_KEYS:
        sort_few(keys, left, count)
    cut.key = keys[0]
    cut.equal = 0
    for i in range(count):
        if keys[i] != cut.key:
            above += cut.equal * left[i - 1]    # a product is rounded once, a sum each time
            cut.key = keys[i]
            cut.equal = 0
        cut.equal += 1
        if above + cut.equal * left[i] >= wanted:
            break
    return cut


cdef inline void keep_up_to(Candidates *all, Cut cut, floating type_tag) noexcept nogil:
    cdef floating *logits = <floating *> all.logits
    cdef npy_intp kept = 0, equal = cut.equal, i
    cdef uint64_t key
    cdef bint is_kept
    for i in range(all.count):
        key = key_of(logits[i])
        is_kept = key > cut.key
        if key == cut.key and equal > 0:
            is_kept = True
            equal -= 1
        logits[kept] = logits[i]
        all.classes[kept] = all.classes[i]
        all.weights[kept] = all.weights[i]
        kept += is_kept
    all.count = kept


cdef inline int count_larger(
    const floating *x, npy_intp padded, floating than, int *equal
) noexcept nogil:
    cdef int above = 0, as_large = 0
    cdef npy_intp i
    for i in range(padded):
        above += x[i] > than
        as_large += x[i] == than
    equal[0] = as_large
    return above


cdef inline void order_few(Candidates *all, floating type_tag) noexcept nogil:
    """The largest first: each goes to the place that as many larger ones leave it. Vector code
    without a branch is faster for a few than any sort."""
    cdef floating *logits = <floating *> all.logits
    cdef floating *ordered = <floating *> all.other_keys
    cdef npy_intp padded = whole_lanes[floating](all.count, 0), i, j
    cdef int place, equal
    for i in range(all.count, padded):
        logits[i] = -INFINITY
    for i in range(all.count):
        place = count_larger(logits, padded, logits[i], &equal)
        if equal > 1:
            for j in range(i):
                place += logits[j] == logits[i]
        ordered[place] = logits[i]
        all.other_classes[place] = all.classes[i]
    all.logits = ordered
    all.classes, all.other_classes = all.other_classes, all.classes


cdef inline void sort_candidates(Candidates *all, floating type_tag) noexcept nogil:
    """The largest first: by one digit of their keys after another, from the last to the first, so
    that what is equal stays in the order of classes. Digits are as long as there are many
    candidates."""
    cdef npy_intp *ends = <npy_intp *> all.bins
    cdef npy_intp count = all.count, i, end, size
    cdef int bits = bits_of_bins(count), shift = 0, digits
    cdef uint64_t highest = 0, lowest, digit
    cdef uint64_t last_digit = (<uint64_t> 1 << bits) - 1
    for i in range(count):
        all.keys[i] = key_of((<floating *> all.logits)[i])
        highest = max(highest, all.keys[i])
    lowest = highest
    for i in range(count):
        lowest = min(lowest, all.keys[i])
        all.keys[i] = highest - all.keys[i]
    digits = bit_length(highest - lowest)
    while shift < digits and not must_stop():
        for i in range(<npy_intp> last_digit + 1):
            ends[i] = 0
        for i in range(count):
            ends[(all.keys[i] >> shift) & last_digit] += 1
        end = 0
        for i in range(<npy_intp> last_digit + 1):
            size = ends[i]
            ends[i] = end
            end += size
        for i in range(count):
            digit = (all.keys[i] >> shift) & last_digit
            all.other_keys[ends[digit]] = all.keys[i]
            all.other_classes[ends[digit]] = all.classes[i]
            ends[digit] += 1
        all.keys, all.other_keys = all.other_keys, all.keys
        all.classes, all.other_classes = all.other_classes, all.classes
        shift += bits
    for i in range(count):
        (<floating *> all.logits)[i] = number_of_key[floating](highest - all.keys[i], 0)


cdef inline void keep_most_probable(
    Candidates *all, npy_intp most, floating type_tag
) noexcept nogil:
    """So many, in the order of classes."""
    cdef const floating *logits = <const floating *> all.logits
    if all.count > most:
        keep_up_to[floating](all, find_cut[floating](all, logits, NULL, all.count, most), 0)


cdef inline void keep_nucleus(
    Candidates *all, double wanted, floating type_tag
) noexcept nogil:
    """The most probable ones that have together what is wanted of all, in the order of classes.
    Sums are rounded: [0.5, 0.3, 0.2] has 0.8 in two classes."""
    cdef const floating *logits = <const floating *> all.logits
    cdef Cut cut
    if all.count > 0:
        cut = find_cut[floating](all, logits, all.weights, all.count, wanted * (1 - 1e-14))
        keep_up_to[floating](all, cut, 0)


cdef inline void order_most_probable(
    Candidates *all, npy_intp most, floating type_tag
) noexcept nogil:
    """So many, the most probable first."""
    if all.count > FEW_CANDIDATES:
        keep_most_probable[floating](all, most, 0)
    if all.count > FEW_CANDIDATES:
        sort_candidates[floating](all, 0)
    else:
        order_few[floating](all, 0)


# Candidates

cdef inline bint find_maxima_of_groups(
    const floating *x, npy_intp n, npy_intp vectors, floating *maxima
) noexcept nogil:
    """Of each lane over some vectors. Whether there is a NaN, which counts as -inf."""
    cdef npy_intp LANES = LANE_BYTES // <npy_intp> sizeof(floating), i = 0, end, k
    cdef floating largest[FLOAT_LANES]
    cdef floating nans[FLOAT_LANES]
    cdef floating one = 1
    cdef bint has_nan = False
    for k in range(LANES):
        nans[k] = 0
    while i < n:
        end = min(n, i + vectors * LANES)
        for k in range(LANES):
            largest[k] = -INFINITY
        while i + LANES <= end:
            for k in range(LANES):
                nans[k] += value_or_zero(one, x[i + k] != x[i + k])
                largest[k] = larger(x[i + k], largest[k])
            i += LANES
        for k in range(end - i):
            nans[k] += value_or_zero(one, x[i + k] != x[i + k])
            largest[k] = larger(x[i + k], largest[k])
        for k in range(LANES):
            maxima[k] = largest[k]
        maxima += LANES
        i = end
    for k in range(LANES):
        has_nan |= nans[k] != 0
    return has_nan


cdef inline floating maximum_of_groups(const Candidates *all, floating type_tag) noexcept nogil:
    cdef floating maximum = -INFINITY
    cdef npy_intp i
    for i in range(all.groups):
        maximum = larger((<floating *> all.maxima)[i], maximum)
    return maximum


cdef inline floating bound_of_groups(
    Candidates *all, npy_intp most, floating type_tag
) noexcept nogil:
    """Of the so many most probable classes none has a smaller logit."""
    cdef const floating *maxima = <const floating *> all.maxima
    cdef Cut cut
    cdef npy_intp i
    cdef int equal, above
    if not are_groups_enough(all.groups, most):
        return -INFINITY
    if all.groups <= FEW_CANDIDATES:
        for i in range(all.groups):
            above = count_larger(maxima, all.groups, maxima[i], &equal)
            if above < most <= above + equal:
                return maxima[i]
    cut = find_cut[floating](all, maxima, NULL, all.groups, most)
    return number_of_key[floating](cut.key, 0)


cdef inline unsigned int candidates_of_vector(
    const floating *x, floating bound, npy_intp count
) noexcept nogil:
    """A bit for each number that is not below the bound: also for NaN, which counts as -inf."""
    cdef int LANES = LANE_BYTES // <int> sizeof(floating), k
    cdef unsigned int bits = 0
    if count < LANES:
        for k in range(<int> count):
            bits |= <unsigned int> (not x[k] < bound) << k
        return bits
    for k in range(LANES):
        bits |= <unsigned int> (not x[k] < bound) << k
    return bits


cdef inline npy_intp copy_candidates(
    const floating *x, npy_intp n, int64_t first, floating bound, npy_intp *at_bound,
    npy_intp room, npy_intp vectors, const floating *maxima, floating *logits, int64_t *classes
) noexcept nogil:
    """From classes that begin with `first`; how many these are. Of those that lie at the bound no
    more than `at_bound`, which is how many are left then. There is room for all others, unless
    another thread changes the logits."""
    cdef npy_intp LANES = LANE_BYTES // <npy_intp> sizeof(floating), i = 0, end, k, count = 0
    cdef floating logit
    cdef unsigned int bits
    while i < n:
        end = min(n, i + vectors * LANES)
        if not candidates_of_vector(maxima, bound, LANES):
            i = end
        while i < end:
            bits = candidates_of_vector(x + i, bound, min(LANES, end - i))
            while bits:
                k = i + lowest_bit(bits)
                bits &= bits - 1
                logit = x[k]    # once: another thread may change it
                logit = logit if logit == logit else <floating> -INFINITY
                if logit == bound:
                    at_bound[0] -= 1
                if logit < bound or count == room or (logit == bound and at_bound[0] < 0):
                    continue
                logits[count] = logit
                classes[count] = first + k
                count += 1
            i += LANES
        i = end
        maxima += LANES
    return count


# Weights and draws

cdef inline void sum_blocks(
    const floating *x, npy_intp n, const ExpParams *params, Kind kind, double *sums
) noexcept nogil:
    """Of exponentials, `BLOCK` at a time."""
    cdef npy_intp LANES = LANE_BYTES // <npy_intp> sizeof(floating), i = 0, end, k
    cdef floating e[FLOAT_LANES]
    cdef LaneSums lanes
    while i < n:
        end = min(n, i + BLOCK)
        clear(&lanes)
        while i + LANES <= end:
            for k in range(LANES):
                e[k] = exponential(x[i + k], params, kind)
            for k in range(LANES):
                lanes.hi[k] += e[k]
            i += LANES
        for k in range(end - i):
            lanes.hi[k] += exponential(x[i + k], params, kind)
        sums[0] = sum_of_lanes[float](&lanes, LANES, 0).hi
        sums += 1
        i = end


cdef inline double sum_of(const double *x, npy_intp n) noexcept nogil:
    cdef double sum = 0
    cdef npy_intp i
    for i in range(n):
        sum += x[i]
    return sum


cdef inline void accumulate(double *x, npy_intp n) noexcept nogil:
    cdef npy_intp i
    for i in range(1, n):
        x[i] += x[i - 1]


cdef inline npy_intp first_above(const double *sums, npy_intp n, double target) noexcept nogil:
    """Of sums that don't fall. One that is not above the last by rounding is taken for less, so that
    where they rise is found."""
    cdef npy_intp low = 0, high = n - 1, middle
    if not target < sums[n - 1]:
        target = sums[n - 1] * (1 - 2.0**-53)
    while low < high:
        middle = (low + high) // 2
        if sums[middle] > target:
            high = middle
        else:
            low = middle + 1
    return low


cdef inline void add_up_block(
    const floating *x, npy_intp n, const ExpParams *params, double before, double *sums,
    floating *e
) noexcept nogil:
    """The sums up to each class, of which there may be a block. `e` is room for its exponentials."""
    cdef npy_intp i
    for i in range(n):
        e[i] = exponential(x[i], params, GENERAL)
    for i in range(n):
        before += e[i]
        sums[i] = before
