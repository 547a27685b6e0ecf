"""Calls of every public function that computes, for tests of what must not change their results."""

import functools

import numpy as np

import csoftmax

# Otherwise what the machine does beside the tests would decide how many threads they use.
csoftmax._dispatch.kernels.ask_always(True)

NOT_COMPUTING = {"__version__", "get_num_threads", "reference", "set_num_threads", "show_config"}
FUNCTIONS = set(csoftmax.__all__) - NOT_COMPUTING


NANS = {
    # Quiet and signalling, of both signs, with several payloads.
    4: [0x7FC00000, 0xFFC00000, 0x7FC12345, 0xFFFFFFFF, 0x7F800001, 0xFFA00003],
    8: [
        0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000012345678, 0xFFFFFFFFFFFFFFFF,
        0x7FF0000000000001, 0xFFF4000000000003,
    ],
}  # fmt: skip


def nans(dtype):
    return np.array(NANS[dtype.itemsize], f"u{dtype.itemsize}").view(dtype)


def special_rows(n, dtype):
    """Rows without a softmax: with NaNs, two of them different, with inf, of -inf alone."""
    some = nans(dtype)
    x = np.random.default_rng(n).normal(size=(24, n)).astype(dtype)
    places = [0, n // 3, n // 2, n - 1]
    for i, row in enumerate(x[:12]):
        row[places[i % 4]] = some[i % 6]
    for i, row in enumerate(x[12:18]):
        row[places[i % 3]] = some[i]
        row[places[i % 3 + 1]] = some[i - 1]
    x[18] = np.inf
    x[19:21] = -np.inf
    x[20, n // 2] = some[3]
    x[21:, n - 1] = np.inf
    x[22, 0] = -np.inf
    x[23, n // 2] = some[1]
    return x


def random_rows(count, n, dtype, seed=0):
    """Ordinary ones of several sizes and offsets; one in five, if there are many, is special."""
    rng = np.random.default_rng([seed, count, n])
    x = rng.normal(size=(count, n)) * rng.choice([1, 30], size=(count, 1))
    x += rng.choice([0, 0, 0, 300, -2100], size=(count, 1))
    x = x.astype(dtype)
    x[1::5] = np.resize(special_rows(n, dtype), x[1::5].shape)
    return x


def companions(count, n, dtype, seed=0):
    """What stands beside logits: numbers in [0, 1), class indices, weights of the classes."""
    rng = np.random.default_rng([seed, n, count])
    beside = rng.random((count, n)).astype(dtype)
    target = rng.integers(n, size=count)
    target[3::7] = -100
    weight = rng.choice([0, 0.5, 1, 3], size=n)
    return beside, target, weight


def in_place(x, **keywords):
    copy = x.copy(order="K")
    return csoftmax.softmax(copy, out=copy, **keywords)


def with_temperature(x, axis, beside, target, weight, temperature):
    """Calls of the functions that have one, by name; the first word is the function's."""
    keywords = {"axis": axis, "temperature": temperature}
    unreduced = {"reduction": "none", **keywords}
    smoothed = {"label_smoothing": 0.1, "weight": weight, **unreduced}
    y = csoftmax.softmax(x, **keywords)
    log_y = csoftmax.log_softmax(x, **keywords)
    few = np.moveaxis(y, axis, -1)[..., :9]
    few = few.reshape(-1, few.shape[-1])[:50]
    one, both = csoftmax.cross_entropy, csoftmax.cross_entropy_value_and_grad
    return {
        "softmax": lambda: csoftmax.softmax(x, **keywords),
        "softmax in place": lambda: in_place(x, **keywords),
        "log_softmax": lambda: csoftmax.log_softmax(x, **keywords),
        "entropy": lambda: csoftmax.entropy(x, **keywords),
        "cross_entropy": lambda: one(x, target, **unreduced),
        "cross_entropy smoothed": lambda: one(x, target, **smoothed),
        "cross_entropy of probabilities": lambda: one(x, beside, **unreduced),
        "cross_entropy_value_and_grad": lambda: both(x, target, **unreduced),
        "cross_entropy_value_and_grad mean": lambda: both(x, target, weight=weight, **keywords),
        "cross_entropy_value_and_grad smoothed": lambda: both(x, target, **smoothed),
        "cross_entropy_value_and_grad of probabilities": lambda: both(
            x, beside, weight=weight, **unreduced
        ),
        "softmax_vjp": lambda: csoftmax.softmax_vjp(beside, y, **keywords),
        "softmax_vjp of special gradients": lambda: csoftmax.softmax_vjp(x, beside, **keywords),
        "log_softmax_vjp": lambda: csoftmax.log_softmax_vjp(beside, log_y, **keywords),
        "log_softmax_vjp of special rows": lambda: csoftmax.log_softmax_vjp(beside, x, **keywords),
        "softmax_jacobian": lambda: csoftmax.softmax_jacobian(
            few, temperature=np.min(temperature)
        ),
    }


def without_temperature(x, axis, beside, target, weight):
    weights = {"weight": beside, "pos_weight": beside}
    calls = {
        "logsumexp": lambda: csoftmax.logsumexp(x, axis),
        "sigmoid": lambda: csoftmax.sigmoid(x),
        "sigmoid of all but the first": lambda: csoftmax.sigmoid(x[1:]),
        "binary_cross_entropy with weights": lambda: csoftmax.binary_cross_entropy(
            x, beside, reduction="none", **weights
        ),
    }
    for reduction in ("none", "sum", "mean"):
        for name, arguments, keywords in (
            ("nll_loss", (x, target), {"axis": axis, "weight": weight}),
            ("cross_entropy", (x, target), {"axis": axis}),
            ("binary_cross_entropy", (x, beside), {"pos_weight": 0.7}),
        ):
            calls[f"{name} {reduction}"] = functools.partial(
                getattr(csoftmax, name), *arguments, reduction=reduction, **keywords
            )
    return calls


def masked(x, axis, where, temperature):
    keywords = {"axis": axis, "where": where}
    return {
        "softmax masked": lambda: csoftmax.softmax(x, temperature=temperature, **keywords),
        "log_softmax masked": lambda: csoftmax.log_softmax(x, temperature=temperature, **keywords),
        "logsumexp masked": lambda: csoftmax.logsumexp(x, **keywords),
    }


def called(calls):
    return {name: call() for name, call in calls.items()}


def bits(results):
    """The same dict, with bytes for arrays: NaNs are different if any of their bits is."""
    return {
        name: b"".join(np.asarray(part).tobytes() for part in (
            result if isinstance(result, tuple) else (result,)
        ))
        for name, result in results.items()
    }  # fmt: skip


SHAPES = [(5000, 7), (300, 130), (3, 12_000), (1, 40_000)]


def bits_of_everything(seed=0, shapes=SHAPES):
    """Of every function, on inputs of both types that are large enough for two threads."""
    everything = {}
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        for shape in shapes:
            x = random_rows(*shape, dtype, seed)
            beside, target, weight = companions(*shape, dtype, seed)
            calls = {
                **with_temperature(x, -1, beside, target, weight, 0.7),
                **without_temperature(x, -1, beside, target, weight),
                **masked(x, -1, beside < 0.5, 1.0),
            }
            for name, result in bits(called(calls)).items():
                everything[dtype.name, shape, name] = result
    return everything
