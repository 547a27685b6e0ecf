"""The recipes of the pages, each beside what people write in NumPy for the same.

What is timed is the code of the page: the functions that a section defines are taken from there.

To add a recipe, write a function that takes these and a size, makes the data, and returns two calls
without arguments, the recipe's and that of what people write, which return the same. Enter it into
`RECIPES`.
"""

import doctest
import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.table import FILTERS, numpy_sample, numpy_value_and_grad
from benchmarks.timing import best_times
from csoftmax.reference import numpy_log_softmax, numpy_logsumexp, numpy_softmax

DOCS = Path(__file__).parents[1] / "docs"


def functions_of(page, title):
    """What the head of a page and one of its sections import and define, by name."""
    text = re.sub(r"(?m)^```.*$", "", (DOCS / page).read_text("utf-8"))
    head, *sections = re.split(r"(?m)^## ", text)
    (section,) = (one for one in sections if one.startswith(f"{title}\n"))
    names = {}
    for example in doctest.DocTestParser().get_examples(head + section):
        if example.source.startswith(("import ", "from ", "def ")):
            exec(example.source, names)
    return names


def normal(*shape, scale=1.0, dtype="float64"):
    return (scale * np.random.default_rng(0).standard_normal(shape)).astype(dtype)


def labels_for(logits):
    return np.random.default_rng(1).integers(logits.shape[-1], size=len(logits))


def numpy_train(inputs, target, first, second, rate):
    hidden = np.maximum(inputs @ first, 0)
    logits = hidden @ second
    losses = np.maximum(logits, 0) - logits * target + np.log1p(np.exp(-np.abs(logits)))
    grad = (1 / (1 + np.exp(-logits)) - target) / logits.size
    back = grad @ second.T
    back[hidden == 0] = 0
    second -= rate * (hidden.T @ grad)
    first -= rate * (inputs.T @ back)
    return losses.mean()


def several_labels(functions, examples, labels, inputs=256, hidden=256, dtype="float32"):
    data = normal(examples, inputs, dtype=dtype)
    target = (data @ normal(inputs, labels, dtype=dtype) > np.sqrt(inputs)).astype(dtype)
    start = [
        normal(inputs, hidden, scale=inputs**-0.5, dtype=dtype),
        normal(hidden, labels, scale=hidden**-0.5, dtype=dtype),
    ]

    def run(train):
        first, second = (weights.copy() for weights in start)
        return train(data, target, first, second, 1.0), first, second

    return partial(run, functions["train"]), partial(run, numpy_train)


def numpy_generate(model, tokens, stop, limit, penalty, top, rng, temperature, **filters):
    tokens, rng = list(tokens), np.random.default_rng(rng)
    for _ in range(limit):
        logits = model(tokens)
        log_probs = numpy_log_softmax(logits)
        best = np.argsort(-log_probs)[:top]
        penalized = logits / temperature
        for token in set(tokens):
            penalized[token] *= 1 / penalty if penalized[token] > 0 else penalty
        token = int(numpy_sample(penalized, rng, **filters))
        yield token, log_probs[token], best, log_probs[best]
        if token in stop:
            return
        tokens.append(token)


def token_loop(functions, classes, tokens=8):
    logits = normal(tokens, classes, scale=4, dtype="float32")

    def run(generate):
        steps = generate(
            lambda drawn: logits[len(drawn) - 1], [0], [classes],
            limit=tokens, penalty=1.1, top=5, rng=0, temperature=0.7, **FILTERS["sample"],
        )  # fmt: skip
        return tuple(map(np.array, zip(*steps, strict=True)))

    return partial(run, functions["generate"]), partial(run, numpy_generate)


def numpy_distill(student, teacher, labels, T=2.0, share=0.9):
    wanted, log_probabilities = numpy_softmax(teacher / T), student / T
    log_probabilities -= numpy_logsumexp(log_probabilities)[:, None]
    soft = (wanted * (np.log(wanted) - log_probabilities)).sum(axis=-1).mean()
    soft_grad = (np.exp(log_probabilities) - wanted) / (T * len(student))
    hard, hard_grad = numpy_value_and_grad(student, (np.arange(len(labels)), labels))
    scale = share * T**2
    return scale * soft + (1 - share) * hard, scale * soft_grad + (1 - share) * hard_grad


def distillation(functions, rows, classes, dtype="float32"):
    student, teacher = normal(2, rows, classes, scale=3, dtype=dtype)
    arguments = student, teacher, labels_for(student)
    return partial(functions["distill"], *arguments), partial(numpy_distill, *arguments)


def numpy_attend(q, k, v, mask):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.dtype.type(q.shape[-1]))
    weights = numpy_softmax(np.where(mask, scores, -np.inf))
    return weights @ v, weights


def numpy_attend_backward(grad, weights, q, k, v):
    grad_weights = grad @ v.swapaxes(-1, -2)
    inner = (grad_weights * weights).sum(axis=-1, keepdims=True)
    grad_scores = weights * (grad_weights - inner) / np.sqrt(q.dtype.type(q.shape[-1]))
    return grad_scores @ k, grad_scores.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ grad


def attention_inputs(shape):
    """Queries, keys and values, with masks that are causal and of the sequences' lengths."""
    q, k, v = normal(3, *shape, dtype="float32")
    batch, _, length, _ = shape
    lengths = np.random.default_rng(1).integers(length // 2, length + 1, size=batch)
    is_key = np.arange(length) < lengths[:, None]
    return q, k, v, np.tri(length, dtype=bool) & is_key[:, None, None, :]


def attention(functions, shape):
    arguments = attention_inputs(shape)
    return partial(functions["attend"], *arguments), partial(numpy_attend, *arguments)


def attention_backward(functions, shape):
    q, k, v, mask = attention_inputs(shape)
    arguments = v[..., ::-1], numpy_attend(q, k, v, mask)[1], q, k, v
    return (
        partial(functions["attend_backward"], *arguments),
        partial(numpy_attend_backward, *arguments),
    )


def attention_by_blocks(functions, shape, block=128):
    arguments = attention_inputs(shape)
    return (
        partial(functions["attend_by_blocks"], *arguments, block),
        lambda: numpy_attend(*arguments)[0],
    )


def numpy_focal_loss(logits, labels, gamma=2.0):
    right = np.arange(len(labels)), labels
    probabilities = numpy_softmax(logits)
    p = probabilities[right]
    losses = -np.log(p)
    slopes = (1 - p) ** (gamma - 1) * (1 - p + gamma * p * losses)
    grad = probabilities
    grad[right] -= 1
    return ((1 - p) ** gamma * losses).mean(), grad * slopes[:, None] / len(labels)


def focal_loss(functions, rows, classes, dtype="float32"):
    logits = normal(rows, classes, scale=2, dtype=dtype)
    arguments = logits, labels_for(logits)
    return partial(functions["focal_loss"], *arguments), partial(numpy_focal_loss, *arguments)


def numpy_objective(labels, margins, sample_weight):
    p = numpy_softmax(margins)
    grad = p.copy()
    grad[np.arange(len(labels)), labels.astype(int)] -= 1
    grad *= sample_weight[:, None]
    return grad, np.maximum(2 * p * (1 - p) * sample_weight[:, None], 1e-6)


def boosting(functions, rows, classes, order="C", dtype="float64"):
    margins = np.asarray(normal(rows, classes, scale=2, dtype=dtype), order=order)
    weight = np.random.default_rng(2).uniform(0.5, 2, size=rows).astype(dtype)
    arguments = labels_for(margins).astype("float32"), margins, weight
    return partial(functions["objective"], *arguments), partial(numpy_objective, *arguments)


def numpy_fit_temperature(logits, labels, low=0.01, high=100.0, steps=25):
    right = np.arange(len(labels)), labels
    for _ in range(steps):
        T = np.sqrt(low * high)
        grad = numpy_softmax(logits / logits.dtype.type(T))
        grad[right] -= 1
        low, high = (low, T) if (grad * logits).sum() < 0 else (T, high)
    return T


def drawn_labels(logits):
    """One of each row, drawn from its softmax."""
    return (logits + np.random.default_rng(1).gumbel(size=logits.shape)).argmax(axis=-1)


def temperature(functions, rows, classes, dtype="float64"):
    logits = normal(rows, classes, scale=2, dtype=dtype)
    arguments = 3 * logits, drawn_labels(logits)
    return (
        partial(functions["fit_temperature"], *arguments),
        partial(numpy_fit_temperature, *arguments),
    )


def numpy_calibration_error(logits, labels, bins=15):
    probabilities = numpy_softmax(logits)
    confidence = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == labels
    which = np.minimum((bins * confidence).astype(int), bins - 1)
    counts = np.maximum(np.bincount(which, minlength=bins), 1)
    means = np.bincount(which, confidence, bins) / counts
    accuracies = np.bincount(which, right, bins) / counts
    return (counts / len(labels) * np.abs(means - accuracies)).sum()


def calibration_error(functions, rows, classes, dtype="float64"):
    logits = normal(rows, classes, scale=2, dtype=dtype)
    arguments = 3 * logits, drawn_labels(logits)
    return (
        partial(functions["calibration_error"], *arguments),
        partial(numpy_calibration_error, *arguments),
    )


def mixture_inputs(points, parts, dimensions):
    centres = normal(parts, dimensions, scale=4)
    rng = np.random.default_rng(1)
    x = centres[rng.integers(parts, size=points)] + rng.standard_normal((points, dimensions))
    weights = rng.dirichlet(np.full(parts, 10.0))
    return x, weights, centres, rng.uniform(0.5, 2, size=centres.shape)


def numpy_expectation(x, weights, means, variances):
    joint = np.log(weights) - 0.5 * (
        np.log(2 * np.pi * variances).sum(axis=1)
        + (means**2 / variances).sum(axis=1)
        - 2 * x @ (means / variances).T
        + x**2 @ (1 / variances).T
    )
    totals = numpy_logsumexp(joint)
    return np.exp(joint - totals[:, None]), totals


def mixture(functions, points, parts, dimensions):
    """The E-step alone."""
    arguments = mixture_inputs(points, parts, dimensions)
    return partial(functions["expectation"], *arguments), partial(numpy_expectation, *arguments)


def mixture_of_sklearn(functions, points, parts, dimensions):
    from sklearn.mixture import GaussianMixture

    x, weights, means, variances = mixture_inputs(points, parts, dimensions)
    model = GaussianMixture(parts, covariance_type="diag")
    model.weights_, model.means_, model.covariances_ = weights, means, variances
    model.precisions_cholesky_ = variances**-0.5
    ours, _ = mixture(functions, points, parts, dimensions)
    return lambda: ours()[0], partial(model.predict_proba, x)


def numpy_forward_backward(start, move, log_emit):
    """Scaled, as Rabiner has it."""
    highest = log_emit.max(axis=-1, keepdims=True)
    emit = np.exp(log_emit - highest)
    forward, backward = np.empty_like(emit), np.ones_like(emit)
    scales = np.empty_like(highest)
    p = start * emit[0]
    for t in range(len(emit)):
        if t > 0:
            p = (p @ move) * emit[t]
        scales[t] = p.sum(axis=-1, keepdims=True)
        p = p / scales[t]
        forward[t] = p
    for t in range(len(emit) - 1, 0, -1):
        backward[t - 1] = (backward[t] * emit[t]) @ move.T / scales[t]
    return forward * backward, (np.log(scales) + highest).sum(axis=0)[..., 0]


def numpy_log_forward_backward(log_start, log_move, log_emit):
    add = np.logaddexp.reduce
    forward, backward = np.empty_like(log_emit), np.zeros_like(log_emit)
    forward[0] = log_start + log_emit[0]
    for t in range(1, len(log_emit)):
        forward[t] = add(forward[t - 1][..., :, None] + log_move, axis=-2) + log_emit[t]
    for t in range(len(log_emit) - 1, 0, -1):
        after = log_emit[t] + backward[t]
        backward[t - 1] = add(log_move + after[..., None, :], axis=-1)
    joint = forward + backward
    total = add(joint, axis=-1, keepdims=True)
    return np.exp(joint - total), total[0, ..., 0]


def hidden_markov_inputs(shape):
    *_, states = shape
    start, *move = np.random.default_rng(1).dirichlet(np.ones(states), size=states + 1)
    return start, np.array(move), normal(*shape, scale=3) - 5


def hidden_markov(functions, shape):
    arguments = hidden_markov_inputs(shape)
    return (
        partial(functions["forward_backward"], *arguments),
        partial(numpy_forward_backward, *arguments),
    )


def hidden_markov_in_logarithms(functions, shape):
    start, move, log_emit = hidden_markov_inputs(shape)
    arguments = np.log(start), np.log(move), log_emit
    return (
        partial(functions["log_forward_backward"], *arguments),
        partial(numpy_log_forward_backward, *arguments),
    )


def transforms(offers):
    scores = offers.groupby("query")["score"]
    exponentials = np.exp(offers["score"] - scores.transform("max"))
    return exponentials / exponentials.groupby(offers["query"]).transform("sum")


def groups(functions, rows, groups, order):
    import pandas as pd

    keys = np.random.default_rng(1).integers(groups, size=rows)
    if order == "sorted":
        keys.sort()
    offers = pd.DataFrame({"query": keys, "score": normal(rows, scale=4)})
    return (
        lambda: functions["softmax_by"](offers["query"], offers["score"]),
        partial(transforms, offers),
    )


class Recipe(NamedTuple):
    section: str
    prepare: Callable    # of the section's functions: the recipe's call, and that of what people do
    rtol: float = 1e-11    # how far results may be apart, relative to the largest
    page: str = "recipes.md"
    needs: tuple = ()    # modules

    def calls(self):
        recipe, plain = self.prepare(functions_of(self.page, self.section))
        return {"plain": plain, "recipe": recipe}


def sizes_of(name, section, prepare, *sizes, **more):
    """One recipe in several sizes, which are in its names."""
    return {
        f"{name}, {', '.join(map(spell, size.items()))}": Recipe(
            section, partial(prepare, **size), **more
        )
        for size in sizes
    }


def spell(item):
    """As one says it, `2000 rows`, or only what it is."""
    key, value = item
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value} {key}" if isinstance(value, int) else value


SINGLE = 1e-5
ATTENTION = "Masked attention, forward and backward"
HMM = "Hidden Markov models: forward and backward"
ATTENTION_SHAPES = [{"shape": (8, 12, 128, 64)}, {"shape": (4, 8, 512, 64)}]
BATCHES = [{"rows": 128, "classes": 10}, {"rows": 256, "classes": 1000}]
HELD_OUT = [{"rows": rows, "classes": classes} for rows, classes in [(2000, 10), (10_000, 100)]]

RECIPES = {
    **sizes_of(
        "several labels", "Several labels at once", several_labels,
        {"examples": 32, "labels": 20}, {"examples": 256, "labels": 20},
        {"examples": 256, "labels": 1000}, rtol=SINGLE,
    ),
    **sizes_of(
        "token loop", "A token loop", token_loop, {"classes": 32_000}, {"classes": 128_256},
        rtol=SINGLE,
    ),
    **sizes_of(
        "distillation", "Distillation", distillation,
        *BATCHES, {"rows": 64, "classes": 32_000}, rtol=SINGLE,
    ),
    **sizes_of("attention", ATTENTION, attention, *ATTENTION_SHAPES, rtol=SINGLE),
    **sizes_of(
        "attention backward", ATTENTION, attention_backward, *ATTENTION_SHAPES, rtol=SINGLE
    ),
    **sizes_of(
        "attention by blocks", ATTENTION, attention_by_blocks, *ATTENTION_SHAPES, rtol=SINGLE
    ),
    **sizes_of(
        "focal loss", "Focal loss", focal_loss,
        *BATCHES, {"rows": 10_000, "classes": 80}, rtol=SINGLE,
    ),
    **sizes_of(
        "boosting, XGBoost's", "Boosting: gradient and Hessian",
        partial(boosting, order="C", dtype="float32"),
        {"rows": 5000, "classes": 3}, {"rows": 100_000, "classes": 10}, rtol=SINGLE,
    ),
    **sizes_of(
        "boosting, LightGBM's", "Boosting: gradient and Hessian",
        partial(boosting, order="F", dtype="float64"),
        {"rows": 5000, "classes": 3}, {"rows": 100_000, "classes": 10},
    ),
    **sizes_of(
        "temperature", "Calibration: fitting the temperature", temperature,
        *HELD_OUT, {"rows": 1000, "classes": 1000},
    ),
    **sizes_of(
        "calibration error", "Calibration error", calibration_error,
        *HELD_OUT, {"rows": 10_000, "classes": 1000},
    ),
    **sizes_of(
        "mixture", "Gaussian mixture by EM", mixture,
        {"points": 400, "parts": 2, "dimensions": 2},
        {"points": 20_000, "parts": 12, "dimensions": 8},
        {"points": 100_000, "parts": 50, "dimensions": 16},
    ),
    **sizes_of(
        "mixture, scikit-learn's", "Gaussian mixture by EM", mixture_of_sklearn,
        {"points": 20_000, "parts": 12, "dimensions": 8}, needs=("sklearn",),
    ),
    **sizes_of(
        "hidden Markov", HMM, hidden_markov,
        {"shape": (2000, 3)}, {"shape": (2000, 10)}, {"shape": (2000, 64)},
        {"shape": (500, 64, 8)}, {"shape": (200, 1000, 16)}, {"shape": (200, 64, 64)},
    ),
    **sizes_of(
        "hidden Markov in logarithms", HMM, hidden_markov_in_logarithms,
        {"shape": (2000, 10)}, {"shape": (500, 64, 8)},
    ),
    **sizes_of(
        "pandas", "pandas", groups,
        *(
            {"rows": rows, "groups": count, "order": order}
            for rows, count in [
                (10_000, 1000), (1_000_000, 10), (1_000_000, 1000), (1_000_000, 100_000)
            ]
            for order in ("shuffled", "sorted")
        ),
        page="ecosystem.md", needs=("pandas",),
    ),
}  # fmt: skip


def available():
    return [name for name, recipe in RECIPES.items() if all(map(find_spec, recipe.needs))]


def quick():
    """The first of each section."""
    firsts = {RECIPES[name].section: name for name in reversed(available())}
    return list(firsts.values())


def measure(name, budget, each_turn):
    """The least time of either, in seconds, both in turns."""
    times = best_times(RECIPES[name].calls(), budget, each_turn)
    return {"name": name, **times, "ratio": times["plain"] / times["recipe"]}
