"""Selections: the most probable classes of each row, or draws from them.

candidates.pxd knows how they are found among numbers that lie side by side. Here are the rows these
come from: a row of a tile, or the chunks of a long one, which threads share. Classes are in the
order of the logits that were given, which an extreme temperature doesn't change: what it makes of
them are weights and log-probabilities.
"""

from cython cimport floating
from libc.math cimport INFINITY, NAN, fabs, log
from libc.stdint cimport int64_t
from libc.string cimport memmove
from numpy cimport npy_intp

from csoftmax.kernels.arithmetic cimport GENERAL, PLAIN, ExpParams, Kind, exponential
from csoftmax.kernels.candidates cimport (
    BLOCK, Candidates, Selection, accumulate, add_up_block, are_all_drawn, are_all_stored,
    blocks_of_row, bound_of_groups, candidates_at, copy_candidates, find_maxima_of_groups,
    first_above, keep_most_probable, keep_nucleus, maximum_of_groups, order_most_probable,
    sum_blocks, sum_of,
)
from csoftmax.kernels.formulas cimport is_finite, log_probability
from csoftmax.kernels.passes cimport ROWS, Layout, Tile, View, in_type_of, params_of
from csoftmax.kernels.plan cimport CLASSES, LOGITS, MASK, ROW_RESULT, UNIFORMS, Plan
from csoftmax.kernels.stops cimport is_stopped, must_stop
from csoftmax.kernels.threads cimport Work, share


cdef enum:
    HIGHER_SHARE = 16    # of a row, times what is left out of a nucleus: see collect_probable


cdef struct Selected:
    # A row of which some are selected.
    const Job *job
    const Part *part
    npy_intp row             # of the part
    const Tile *tile         # which has the row's parameters and sums
    Py_ssize_t r             # at this place
    LongRow *all             # of a long row; else NULL, and these are the logits, as they are given
    const void *given        # and changed for an extreme temperature
    const void *changed
    Candidates candidates
    double bound             # of their logits
    double maximum           # of the logits; NaN if there is one among them
    Maximum first_maximum    # where the temperature is extreme
    double temperature       # as given


cdef inline void start_selected(
    Selected *selected, const Job *job, const Part *part, npy_intp row, const Tile *tile,
    Py_ssize_t r, char *place, floating type_tag
) noexcept nogil:
    selected.job = job
    selected.part = part
    selected.row = row
    selected.tile = tile
    selected.r = r
    selected.all = NULL
    selected.candidates = candidates_at[floating](place, job.plan.n, job.selection, 0)
    selected.temperature = temperature_given(job, part, row)


cdef inline const floating *row_of_view(
    const View *view, Py_ssize_t r, npy_intp n, Layout layout, floating *copy
) noexcept nogil:
    """Where it is, or copied from columns."""
    cdef const floating *row = <const floating *> view.data + r * view.row_step
    cdef npy_intp i
    if layout == ROWS:
        return row
    for i in range(n):
        copy[i] = row[i * view.class_step]
    return copy


cdef inline const floating *logits_of_block(
    const Selected *selected, npy_intp first, npy_intp count, floating type_tag
) noexcept nogil:
    cdef const LongRow *all = selected.all
    cdef View loaded_view
    if all == NULL:
        return <const floating *> selected.changed + first
    loaded_view = loaded[floating](all.job, all.block, LOGITS, 0, first, count, all.copies, 0)
    if all.job.has_extremes:
        change_for_extreme(
            <floating *> loaded_view.data, 1, count, first, &all.maximum, all.temperature
        )
    return <const floating *> loaded_view.data


cdef inline ExpParams params_of_row(
    const Tile *tile, Py_ssize_t r, floating type_tag
) noexcept nogil:
    cdef ExpParams params = params_of[floating](tile, r, GENERAL, 0)
    params.power = tile.power[r]
    params.residue = tile.residue[r]
    return params


# Threads share the chunks of a long row.

cdef inline floating *groups_of_chunk(
    const Candidates *candidates, npy_intp c, floating type_tag
) noexcept nogil:
    return <floating *> candidates.maxima + (
        c * chunk_length[floating](0) // candidates.vectors
    )


cdef inline void find_groups_of_chunk(
    const LongRow *all, npy_intp c, const Tile *tile, floating type_tag
) noexcept nogil:
    cdef const Candidates *candidates = &all.selected.candidates
    all.chunks[c].has_nan = find_maxima_of_groups(
        <floating *> tile.companion.data, tile.classes, candidates.vectors,
        groups_of_chunk[floating](candidates, c, 0),
    )


cdef npy_intp copy_candidates_of_chunk(
    LongRow *all, npy_intp c, int participant, npy_intp place, npy_intp *at_bound,
    floating type_tag
) noexcept nogil:
    """How many these are."""
    cdef const Candidates *candidates = &all.selected.candidates
    cdef npy_intp start = c * chunk_length[floating](0)
    cdef char *copies = copies_of_participant(all, participant)
    cdef Tile *tile = tile_of_participant(all.job, copies)
    cdef Rows rows
    start_chunk[floating](all, c, &rows, tile, copies, 0)
    return copy_candidates(
        <floating *> tile.companion.data, tile.classes, start, <floating> all.selected.bound,
        at_bound, candidates.room - place, candidates.vectors,
        groups_of_chunk[floating](candidates, c, 0), <floating *> candidates.logits + place,
        candidates.classes + place,
    )


cdef void copy_candidates_of_chunks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    """To places as far apart as the chunks are."""
    cdef LongRow *all = <LongRow *> work
    cdef npy_intp at_bound = all.job.plan.n, c
    for c in range(first, last):
        all.chunks[c].candidates = copy_candidates_of_chunk[floating](
            all, c, participant, c * chunk_length[floating](0), &at_bound, 0
        )


cdef void sum_blocks_of_chunks(
    void *work, npy_intp first, npy_intp last, int participant, const floating *type_tag
) noexcept nogil:
    cdef LongRow *all = <LongRow *> work
    cdef ExpParams params = params_of_row[floating](all.whole, 0, 0)
    cdef npy_intp c
    cdef char *copies = copies_of_participant(all, participant)
    cdef Tile *tile = tile_of_participant(all.job, copies)
    cdef Rows rows
    for c in range(first, last):
        start_chunk[floating](all, c, &rows, tile, copies, 0)
        sum_blocks_of(
            <floating *> tile.logits.data, tile.classes, &params, all.whole.kind,
            all.selected.candidates.weights + c * chunk_length[floating](0) // BLOCK,
        )


cdef void sum_blocks_of(
    const floating *x, npy_intp n, const ExpParams *params, Kind kind, double *sums
) noexcept nogil:
    if kind == PLAIN:
        sum_blocks(x, n, params, PLAIN, sums)
    else:
        sum_blocks(x, n, params, GENERAL, sums)


cdef void collect_candidates(Selected *selected, floating type_tag) noexcept nogil:
    """A few are copied by one thread."""
    cdef Candidates *candidates = &selected.candidates
    cdef LongRow *all = selected.all
    cdef npy_intp n = selected.job.plan.n, at_bound = selected.job.selection.most, c
    if all == NULL:
        candidates.count = copy_candidates(
            <const floating *> selected.given, n, 0, <floating> selected.bound, &at_bound,
            candidates.room, candidates.vectors, <floating *> candidates.maxima,
            <floating *> candidates.logits, candidates.classes,
        )
        return
    candidates.count = 0
    if candidates.room < n:
        for c in range(all.count):
            if must_stop():
                return
            candidates.count += copy_candidates_of_chunk[floating](
                all, c, 0, candidates.count, &at_bound, 0
            )
        return
    share(
        <Work> copy_candidates_of_chunks[floating], all, all.count, 1, n,
        selected.job.threads_of_row,
    )
    for c in range(0 if is_stopped() else all.count):    # else some have not counted theirs
        move_candidates[floating](
            candidates, c * chunk_length[floating](0), all.chunks[c].candidates, 0
        )


cdef inline void move_candidates(
    Candidates *candidates, npy_intp start, npy_intp count, floating type_tag
) noexcept nogil:
    """To those before."""
    cdef floating *logits = <floating *> candidates.logits
    memmove(logits + candidates.count, logits + start, count * sizeof(floating))
    memmove(
        candidates.classes + candidates.count, candidates.classes + start, count * sizeof(int64_t)
    )
    candidates.count += count


cdef inline floating changed_logit(
    const Selected *selected, floating logit, int64_t place
) noexcept nogil:
    if selected.job.has_extremes:
        change_for_extreme(
            &logit, 1, 1, place, &selected.first_maximum, selected.temperature
        )
    return logit


cdef inline floating log_probability_of(
    const Selected *selected, floating logit, int64_t place
) noexcept nogil:
    """As log_softmax has it."""
    cdef const Tile *tile = selected.tile
    cdef const Job *job = selected.job
    cdef Py_ssize_t r = selected.r
    cdef floating maximum = <floating> tile.maximum[r], log_sum = <floating> tile.log_sum[r]
    cdef const char *mask = selected.part.places[MASK]
    if log_sum != log_sum:
        if is_masked(job):
            mask += selected.row * job.plan.strides[0][MASK] + place * job.plan.stride[MASK]
            return NAN if mask[0] else -INFINITY
        return NAN
    logit = changed_logit(selected, logit, place)
    if tile.kind == PLAIN:
        return log_probability(logit, maximum, log_sum, 1, 0, PLAIN)
    return log_probability(
        logit, maximum, log_sum, in_type_of[floating](tile.inverse_hi, 0)[r],
        in_type_of[floating](tile.inverse_lo, 0)[r], GENERAL,
    )


cdef void write_top(Selected *selected, floating type_tag) noexcept nogil:
    cdef const Plan *plan = selected.job.plan
    cdef Candidates *candidates = &selected.candidates
    cdef npy_intp most = selected.job.selection.most, i
    cdef char *classes = selected.part.places[CLASSES]
    cdef char *results = selected.part.places[ROW_RESULT]
    selected.bound = bound_of_groups[floating](candidates, most, 0)
    collect_candidates[floating](selected, 0)
    order_most_probable[floating](candidates, most, 0)
    for i in range(candidates.count, most):    # another thread has changed the logits meanwhile
        candidates.classes[i] = i
        (<floating *> candidates.logits)[i] = NAN
    classes += selected.row * plan.strides[0][CLASSES]
    results += selected.row * plan.strides[0][ROW_RESULT]
    for i in range(most):
        (<int64_t *> (classes + i * plan.stride[CLASSES]))[0] = candidates.classes[i]
        (<floating *> (results + i * plan.stride[ROW_RESULT]))[0] = log_probability_of[floating](
            selected, (<floating *> candidates.logits)[i], candidates.classes[i]
        )


cdef inline double uniform_of_draw(const Selected *selected, npy_intp i) noexcept nogil:
    """0 where there is but one class to draw."""
    cdef const Plan *plan = selected.job.plan
    cdef const char *place = selected.part.places[UNIFORMS]
    if plan.data[UNIFORMS] == NULL:
        return 0
    place += selected.row * plan.strides[0][UNIFORMS] + i * plan.stride[UNIFORMS]
    return (<const double *> place)[0]


cdef inline int64_t *place_of_draw(const Selected *selected, npy_intp i) noexcept nogil:
    cdef const Plan *plan = selected.job.plan
    cdef char *place = selected.part.places[CLASSES]
    return <int64_t *> (
        place + selected.row * plan.strides[0][CLASSES] + i * plan.stride[CLASSES]
    )


cdef inline bint are_all_summed(const Job *job) noexcept nogil:
    """The exponentials of a row: unless few are kept, or those alone that are near the largest."""
    cdef const Selection *selection = job.selection
    return selection.most >= job.plan.n and (
        selection.top_p < 1 or selection.log_min_p == -INFINITY
    )


cdef double sum_all_blocks(Selected *selected, floating type_tag) noexcept nogil:
    cdef npy_intp n = selected.job.plan.n
    cdef const Tile *tile = selected.tile
    cdef ExpParams params
    if selected.all != NULL:
        share(
            <Work> sum_blocks_of_chunks[floating], selected.all, selected.all.count, 1, n,
            selected.job.threads_of_row,
        )
    else:
        params = params_of_row[floating](tile, selected.r, 0)
        sum_blocks_of(
            logits_of_block[floating](selected, 0, n, 0), n, &params, tile.kind,
            selected.candidates.weights,
        )
    return sum_of(selected.candidates.weights, blocks_of_row(n))


cdef void add_up_one_block(
    Selected *selected, npy_intp block, double *sums, floating type_tag
) noexcept nogil:
    cdef const double *of_blocks = selected.candidates.weights
    cdef ExpParams params = params_of_row[floating](selected.tile, selected.r, 0)
    cdef npy_intp first = block * BLOCK, count = min(BLOCK, selected.job.plan.n - first)
    add_up_block(
        logits_of_block[floating](selected, first, count, 0), count, &params,
        of_blocks[block - 1] if block > 0 else 0, sums, <floating *> selected.candidates.other_keys,
    )


cdef void draw_from_all(Selected *selected, floating type_tag) noexcept nogil:
    """First a block, then a class of it. Where there are many draws, the sums of all blocks are
    made before."""
    cdef npy_intp n = selected.job.plan.n, blocks = blocks_of_row(n), block, i
    cdef bint are_stored = are_all_stored(selected.job.selection, n)
    cdef double *of_blocks = selected.candidates.weights
    cdef double *sums = <double *> selected.candidates.keys
    cdef double target
    accumulate(of_blocks, blocks)
    for block in range(blocks if are_stored else 0):
        if must_stop():
            return
        add_up_one_block[floating](selected, block, sums + block * BLOCK, 0)
    for i in range(selected.job.selection.draws):
        target = uniform_of_draw(selected, i) * of_blocks[blocks - 1]
        block = first_above(of_blocks, blocks, target)
        if not are_stored:
            add_up_one_block[floating](selected, block, sums, 0)
        place_of_draw(selected, i)[0] = block * BLOCK + first_above(
            sums + block * BLOCK if are_stored else sums, min(BLOCK, n - block * BLOCK), target
        )


cdef inline double bound_of_nucleus(
    const Selected *selected, double total, floating type_tag
) noexcept nogil:
    """What all classes with smaller logits have together is less than what is left out: each has
    less than the exponential of the bound."""
    cdef double left_out = (1 - selected.job.selection.top_p) * total / selected.job.plan.n
    cdef ExpParams params = params_of_row[floating](selected.tile, selected.r, 0)
    cdef double largest = exponential(
        <floating> selected.tile.maximum[selected.r], &params, GENERAL
    )
    return selected.maximum + selected.temperature * log(left_out / largest)


cdef inline double bound_of_min_p(const Selected *selected) noexcept nogil:
    """Of distances from the maximum."""
    if not is_finite(selected.temperature):
        return -INFINITY
    return selected.temperature * selected.job.selection.log_min_p


cdef void keep_min_p(Selected *selected, floating type_tag) noexcept nogil:
    cdef Candidates *candidates = &selected.candidates
    cdef floating *logits = <floating *> candidates.logits
    cdef double bound = bound_of_min_p(selected)
    cdef npy_intp kept = 0, i
    cdef bint is_kept
    for i in range(candidates.count):
        is_kept = logits[i] - selected.maximum >= bound
        candidates.classes[kept] = candidates.classes[i]
        candidates.weights[kept] = candidates.weights[i]
        kept += is_kept
    candidates.count = kept


cdef inline double with_margin(double bound, double maximum) noexcept nogil:
    """For what is rounded; -inf where it is no number."""
    bound -= 1e-6 * (fabs(bound) + fabs(maximum))
    return bound if bound > -1e38 else -INFINITY


cdef void weigh_candidates(Selected *selected, floating type_tag) noexcept nogil:
    cdef Candidates *candidates = &selected.candidates
    cdef floating *logits = <floating *> candidates.logits
    cdef double *weights = candidates.weights
    cdef ExpParams params = params_of_row[floating](selected.tile, selected.r, 0)
    cdef npy_intp i
    if selected.job.has_extremes:
        for i in range(candidates.count):
            weights[i] = exponential(
                changed_logit(selected, logits[i], candidates.classes[i]), &params, GENERAL
            )
        return
    for i in range(candidates.count):
        weights[i] = exponential(logits[i], &params, GENERAL)


cdef void refuse_row(const Selected *selected) noexcept nogil:
    """It has no distribution: its draws are no classes, and the call is refused."""
    cdef npy_intp i
    for i in range(selected.job.selection.draws):
        place_of_draw(selected, i)[0] = -1


cdef void collect_probable(Selected *selected, double total, floating type_tag) noexcept nogil:
    """Candidates of the nucleus of all classes, and of what is not less probable than `min_p`. Most
    rows are spread so that a higher bound than the one that always holds leaves the nucleus among
    a fifth of the candidates: that one is tried first."""
    cdef const Selection *selection = selected.job.selection
    cdef Candidates *candidates = &selected.candidates
    cdef double bound_of_others = -INFINITY, higher = HIGHER_SHARE
    if selection.log_min_p > -INFINITY:
        bound_of_others = with_margin(
            selected.maximum + bound_of_min_p(selected), selected.maximum
        )
    while True:
        selected.bound = bound_of_others
        if selection.top_p < 1:
            selected.bound = max(bound_of_others, with_margin(
                bound_of_nucleus[floating](selected, higher * total, 0), selected.maximum
            ))
        collect_candidates[floating](selected, 0)
        weigh_candidates[floating](selected, 0)
        if higher == 1 or selected.bound == bound_of_others or (
            candidates.count > 0
            and sum_of(candidates.weights, candidates.count) >= selection.top_p * total
        ):
            return
        higher = 1


cdef void draw_from_candidates(Selected *selected, floating type_tag) noexcept nogil:
    cdef Candidates *candidates = &selected.candidates
    cdef npy_intp i
    cdef double total
    if candidates.count == 0:    # another thread has changed the logits meanwhile
        refuse_row(selected)
        return
    accumulate(candidates.weights, candidates.count)
    total = candidates.weights[candidates.count - 1]
    for i in range(selected.job.selection.draws):
        place_of_draw(selected, i)[0] = candidates.classes[
            first_above(
                candidates.weights, candidates.count, uniform_of_draw(selected, i) * total
            )
        ]


cdef void draw(Selected *selected, floating type_tag) noexcept nogil:
    cdef const Selection *selection = selected.job.selection
    cdef Candidates *candidates = &selected.candidates
    cdef double total = 0
    if not is_finite(selected.maximum):
        refuse_row(selected)
        return
    if are_all_summed(selected.job):
        total = sum_all_blocks[floating](selected, 0)
    if are_all_drawn(selection, selected.job.plan.n):
        draw_from_all[floating](selected, 0)
        return
    if selection.most < selected.job.plan.n:
        selected.bound = bound_of_groups[floating](candidates, selection.most, 0)
        collect_candidates[floating](selected, 0)
        keep_most_probable[floating](candidates, selection.most, 0)
        weigh_candidates[floating](selected, 0)
        total = sum_of(candidates.weights, candidates.count)
    else:
        collect_probable[floating](selected, total, 0)
    if selection.top_p < 1:
        keep_nucleus[floating](candidates, selection.top_p * total, 0)
    if selection.log_min_p > -INFINITY:
        keep_min_p[floating](selected, 0)
    draw_from_candidates[floating](selected, 0)


cdef void select_in_row(Selected *selected, floating type_tag) noexcept nogil:
    if is_sample(selected.job):
        draw[floating](selected, 0)
    else:
        write_top[floating](selected, 0)


cdef void select_in_rows(
    const Job *job, const Block *block, npy_intp begin, const Tile *tile, char *place,
    floating type_tag
) noexcept nogil:
    """Of rows that are no longer than a chunk."""
    cdef const Part *part
    cdef const floating *x
    cdef npy_intp p, r
    cdef Selected selected
    for p in range(block.count):
        part = block.parts + p
        for r in range(max(begin, part.first), min(begin + tile.rows, part.first + part.rows)):
            start_selected[floating](
                &selected, job, part, r - part.first, tile, r - begin, place, 0
            )
            x = row_of_view[floating](
                &tile.companion, r - begin, job.plan.n, job.layout,
                <floating *> selected.candidates.given,
            )
            selected.given = x
            selected.changed = row_of_view[floating](
                &tile.logits, r - begin, job.plan.n, job.layout,
                <floating *> selected.candidates.changed,
            )
            if job.has_extremes:
                selected.first_maximum = maximum_of[floating](
                    <char *> x, sizeof(floating), job.plan.n, NULL, 0, 0
                )
            selected.maximum = NAN
            if not find_maxima_of_groups(
                x, job.plan.n, selected.candidates.vectors, <floating *> selected.candidates.maxima
            ):
                selected.maximum = maximum_of_groups[floating](&selected.candidates, 0)
            select_in_row[floating](&selected, 0)


cdef void set_params_of_sample(LongRow *all, floating type_tag) noexcept nogil:
    """Of a long row."""
    cdef Selected *selected = all.selected
    cdef npy_intp c
    selected.maximum = maximum_of_groups[floating](&selected.candidates, 0)
    for c in range(all.count):
        if all.chunks[c].has_nan:
            selected.maximum = NAN
    all.whole.maximum[0] = changed_logit(
        selected, <floating> selected.maximum, selected.first_maximum.place
    )
    set_params_of[floating](all.whole, True, 0)
