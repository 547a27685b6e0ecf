"""Random calls of every public function, checked against longdouble formulas.

    python -m tests.fuzz --calls 1000000 --seed 0
    python -m tests.fuzz --seed 0 --only 4711
    python -m tests.fuzz --calls 20000 --climb 2000

A call follows from the seed and its number alone. CSOFTMAX_ISA chooses the build. Structure varies
more than size: types, shapes, axes, memory layouts, overlaps, special values, wrong arguments.
`--climb` goes on from each function's worst call, to errors that chance alone does not find.

`__main__`      the command line
`random_calls`  a call as a whole: the tables of functions and of what may be wrong, making the
                call, and what holds for every function (exceptions, flags, memory)
`climb`         from the worst call on: changes of its arguments that make it worse
`arguments`     how shapes, axes, memory layouts, masks, temperatures and `out` are drawn
`values`        types, and which numbers of them are drawn
`rowwise`       softmax, log_softmax, logsumexp, both at once, entropy, sigmoid, log_sigmoid
`losses`        cross_entropy, kl_divergence, binary_cross_entropy, with and without gradients,
                nll_loss
`gradients`     the vector-Jacobian products, and the Jacobian
`sampling`      top_log_probs, sample

In the last four, the function for a call draws its arguments; tests/contract.py has what must come
of them.
"""

from .random_calls import FUNCTIONS, Call, run_many

__all__ = ["FUNCTIONS", "Call", "run_many"]
