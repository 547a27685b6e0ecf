"""PyTorch's losses, activations and gradients against csoftmax's, over the grids of their options.

PyTorch computes in float64, for float32 too. Axis 1 is the classes', as PyTorch has it.
"""

import itertools
import math

import numpy as np
import pytest

import csoftmax

torch = pytest.importorskip("torch")
functional = torch.nn.functional

# What csoftmax promises without FMA, in eps: of the largest term, for softmax of the result.
LOSS, GRADIENT, SOFTMAX = 3, 5, 4

C = 7
SHAPES = [(C,), (5, C), (5, C, 3), (5, C, 3, 2)]
WEIGHTS = {
    "no-weight": None,
    "weight": np.array([0.9, 0.2, 1.0, 0.5, 0.1, 0.7, 0.3]),
    "zeros-in-weight": np.array([0.0, 0.2, 1.0, 0.0, 0.1, 0.7, 0.0]),
    "zero-weight": np.zeros(C),
}
REDUCTIONS = ["none", "sum", "mean"]

each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_weight = pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS.keys())
each_label_smoothing = pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
each_ignored = pytest.mark.parametrize(
    "ignored", ["none-ignored", "one-class-ignored", "all-ignored"]
)
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
each_temperature = pytest.mark.parametrize("temperature", [0.7, 3.0, "per-row"])


def class_axis(shape):
    return min(1, len(shape) - 1)


def row_shape(shape):
    axis = class_axis(shape)
    return shape[:axis] + shape[axis + 1 :]


def random_logits(shape, dtype):
    """Of unit variance: PyTorch has no p so close to 1 that its gradient p - 1 cancels."""
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def class_indices(shape, ignored):
    """Targets, and the keywords by which this many of them are ignored."""
    target = np.random.default_rng(1).integers(C, size=row_shape(shape))
    if ignored == "all-ignored":
        return np.full_like(target, -100), {}
    if ignored == "one-class-ignored":
        return target, {"ignore_index": int(target.flat[0])}
    return target, {}


def float_targets(kind, shape, dtype):
    rng = np.random.default_rng(1)
    if kind == "one-hot":
        target = np.eye(C)[rng.integers(C, size=row_shape(shape))]
    else:
        target = rng.dirichlet(np.ones(C), size=row_shape(shape))
    return np.moveaxis(target, -1, class_axis(shape)).astype(dtype)


def row_temperatures(temperature, shape):
    """A number for all rows or, for "per-row", one for each."""
    if temperature == "per-row":
        return np.random.default_rng(2).uniform(0.7, 3, size=row_shape(shape))
    return temperature


def as_tensor(array, **keywords):
    """Floats become float64; None stays."""
    if array is None:
        return None
    array = np.asarray(array)
    dtype = torch.float64 if array.dtype.kind == "f" else torch.int64
    return torch.tensor(array, dtype=dtype, **keywords)


def divided(logits, temperature, axis):
    """Logits / T, with one T per row or one number."""
    if np.ndim(temperature):
        temperature = np.expand_dims(temperature, axis)
    return logits / as_tensor(temperature)


def torch_cross_entropy(logits, target, weight=None, temperature=1.0, **keywords):
    """The loss and its gradient; without reduction the gradient of the sum."""
    logits = as_tensor(logits, requires_grad=True)
    scaled = divided(logits, temperature, class_axis(logits.shape))
    loss = functional.cross_entropy(scaled, as_tensor(target), weight=as_tensor(weight), **keywords)
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach().numpy(), grad.numpy()


def assert_close(actual, expected, dtype, limit, largest, returned=None):
    """Within `limit` eps of the largest term; in float64 twice that, for PyTorch's own error.

    eps is that of `dtype`, in which it is computed; the result has it too, or the type `returned`.
    NaN must meet NaN.
    """
    assert actual.dtype == (dtype if returned is None else returned)
    assert np.shape(actual) == expected.shape
    eps = np.finfo(dtype).eps * (1 if dtype == np.float32 else 2)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    error = np.abs(np.asarray(actual, np.float64) - expected)
    assert not (error > limit * eps * largest).any()


def assert_losses_close(actual, expected, dtype, logits, reduction="none"):
    """The terms of a loss are the logits and the logsumexp; those of a sum are the losses."""
    largest = np.fmax(np.abs(logits).max(), np.abs(expected))
    returned = dtype if reduction == "none" else np.float64
    assert_close(actual, expected, dtype, LOSS, largest, returned)


def assert_gradients_close(actual, expected, dtype, limit=GRADIENT):
    largest = np.abs(expected).max(axis=class_axis(expected.shape), keepdims=True)
    assert_close(actual, expected, dtype, limit, largest)


def check_cross_entropy(logits, target, temperature=1.0, **keywords):
    dtype = logits.dtype
    expected, expected_grad = torch_cross_entropy(
        logits, target, temperature=temperature, **keywords
    )
    keywords.update(axis=class_axis(logits.shape), temperature=temperature)
    loss, grad = csoftmax.cross_entropy_value_and_grad(logits, target, **keywords)
    loss_alone = csoftmax.cross_entropy(logits, target, **keywords)
    # None of the logits / T is larger than the largest of these.
    scaled = logits / np.min(temperature)
    reduction = keywords["reduction"]
    assert_losses_close(loss_alone, expected, dtype, scaled, reduction)
    assert_losses_close(loss, expected, dtype, scaled, reduction)
    assert_gradients_close(grad, expected_grad, dtype)


@each_shape
@each_weight
@each_label_smoothing
@each_ignored
@each_reduction
def test_cross_entropy_of_class_indices(dtype, shape, weight, label_smoothing, ignored, reduction):
    target, ignore = class_indices(shape, ignored)
    check_cross_entropy(
        random_logits(shape, dtype), target, weight=weight, label_smoothing=label_smoothing,
        reduction=reduction, **ignore,
    )  # fmt: skip


@each_shape
@each_weight
@each_label_smoothing
@each_reduction
@pytest.mark.parametrize("kind", ["probabilities", "one-hot"])
def test_cross_entropy_of_probabilities(dtype, kind, shape, weight, label_smoothing, reduction):
    check_cross_entropy(
        random_logits(shape, dtype), float_targets(kind, shape, dtype), weight=weight,
        label_smoothing=label_smoothing, reduction=reduction,
    )  # fmt: skip


@each_shape
@pytest.mark.parametrize("kind", ["probabilities", "one-hot"])
def test_ignore_index_does_not_go_with_probabilities(kind, shape, dtype):
    logits, target = random_logits(shape, dtype), float_targets(kind, shape, dtype)
    with pytest.raises(RuntimeError, match="ignore_index"):
        torch_cross_entropy(logits, target, ignore_index=2)
    for function in (csoftmax.cross_entropy, csoftmax.cross_entropy_value_and_grad):
        with pytest.raises(ValueError, match="ignore_index"):
            function(logits, target, axis=class_axis(shape), ignore_index=2)


@each_shape
@each_temperature
@each_reduction
@pytest.mark.parametrize("kind", ["class-indices", "probabilities"])
def test_cross_entropy_with_temperature(dtype, kind, shape, temperature, reduction):
    """PyTorch gets logits / T, and its gradient is with respect to the logits, too."""
    if kind == "class-indices":
        target, ignore = class_indices(shape, "one-class-ignored")
    else:
        target, ignore = float_targets(kind, shape, dtype), {}
    check_cross_entropy(
        random_logits(shape, dtype), target, row_temperatures(temperature, shape),
        weight=WEIGHTS["weight"], label_smoothing=0.1, reduction=reduction, **ignore,
    )  # fmt: skip


@each_shape
@each_weight
@each_ignored
@each_reduction
def test_nll_loss(dtype, shape, weight, ignored, reduction):
    axis = class_axis(shape)
    log_probs = torch.log_softmax(as_tensor(random_logits(shape, dtype)), axis)
    log_probs = log_probs.numpy().astype(dtype)
    target, ignore = class_indices(shape, ignored)
    keywords = {"reduction": reduction, **ignore}
    expected = functional.nll_loss(
        as_tensor(log_probs), as_tensor(target), weight=as_tensor(weight), **keywords
    )
    result = csoftmax.nll_loss(log_probs, target, axis=axis, weight=weight, **keywords)
    assert_losses_close(result, expected.numpy(), dtype, log_probs, reduction)


@pytest.mark.parametrize(
    ("function", "vjp"),
    [("softmax", "softmax_vjp"), ("log_softmax", "log_softmax_vjp")],
    ids=["softmax", "log_softmax"],
)
@each_shape
@each_temperature
def test_vjp(dtype, function, vjp, shape, temperature):
    axis = class_axis(shape)
    temperature = row_temperatures(temperature, shape)
    grad = np.random.default_rng(3).normal(size=shape).astype(dtype)
    x = as_tensor(random_logits(shape, dtype), requires_grad=True)
    y = getattr(torch, function)(divided(x, temperature, axis), axis)
    (expected,) = torch.autograd.grad(y, x, as_tensor(grad))

    y = y.detach().numpy().astype(dtype)
    result = getattr(csoftmax, vjp)(grad, y, axis=axis, temperature=temperature)
    # One more, as y is rounded before csoftmax gets it.
    assert_gradients_close(result, expected.numpy(), dtype, GRADIENT + 1)


def test_sigmoid(dtype):
    special = [0.0, -0.0, 1e4, -1e4, np.inf, -np.inf, np.nan]
    x = np.append(np.linspace(-120, 120, 1001), special).astype(dtype)
    expected = torch.sigmoid(as_tensor(x)).numpy()
    # Probabilities under the smallest normal number may be 0.
    normal = ~(expected < np.finfo(dtype).tiny)
    result = csoftmax.sigmoid(x)
    assert_close(result[normal], expected[normal], dtype, SOFTMAX, expected[normal])
    assert (np.abs(result[~normal]) <= np.finfo(dtype).tiny).all()


def test_log_sigmoid(dtype):
    special = [0.0, -0.0, 1e4, -1e4, np.inf, -np.inf, np.nan]
    x = np.append(np.linspace(-80, 80, 1001), special).astype(dtype)
    expected = functional.logsigmoid(as_tensor(x)).numpy()
    result = csoftmax.log_sigmoid(x)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(result[~finite], expected[~finite])
    # PyTorch's has an absolute error next to 0.
    largest = np.maximum(np.abs(expected), 1)[finite]
    assert_close(result[finite], expected[finite], dtype, LOSS, largest)


BROADCAST = [None, (), (C,), (5, 1), (5, C)]


@pytest.mark.parametrize("weight", BROADCAST, ids=str)
@pytest.mark.parametrize("pos_weight", BROADCAST, ids=str)
@each_reduction
def test_binary_cross_entropy(dtype, weight, pos_weight, reduction):
    rng = np.random.default_rng(4)
    logits = random_logits((5, C), dtype)
    target = rng.uniform(size=(5, C)).astype(dtype)
    target[0], target[1] = 0, 1
    # Shapes become arrays of numbers up to 1, so that no term is larger than the logits.
    weight, pos_weight = (
        None if shape is None else rng.uniform(0.1, 1, size=shape).astype(dtype)
        for shape in (weight, pos_weight)
    )
    x = as_tensor(logits, requires_grad=True)
    expected = functional.binary_cross_entropy_with_logits(
        x, as_tensor(target), as_tensor(weight), pos_weight=as_tensor(pos_weight),
        reduction=reduction,
    )  # fmt: skip
    (expected_grad,) = torch.autograd.grad(expected.sum(), x)
    expected = expected.detach().numpy()
    keywords = {"weight": weight, "pos_weight": pos_weight, "reduction": reduction}
    result = csoftmax.binary_cross_entropy(logits, target, **keywords)
    assert_losses_close(result, expected, dtype, logits, reduction)
    result, grad = csoftmax.binary_cross_entropy_value_and_grad(logits, target, **keywords)
    assert_losses_close(result, expected, dtype, logits, reduction)
    # Of terms up to 1, before the mean, PyTorch makes differences.
    largest = 1 / logits.size if reduction == "mean" else 1
    assert_close(grad, expected_grad.numpy(), dtype, GRADIENT, largest)


def test_binary_cross_entropy_of_certain_predictions(dtype):
    logits, target = np.array(list(itertools.product([-1e4, -30, 30, 1e4], [0, 1])), dtype).T
    expected = functional.binary_cross_entropy_with_logits(
        as_tensor(logits), as_tensor(target), reduction="none"
    )
    result = csoftmax.binary_cross_entropy(logits, target, reduction="none")
    assert_close(result, expected.numpy(), dtype, LOSS, np.abs(logits))


@each_shape
@each_temperature
def test_entropy(dtype, shape, temperature):
    axis = class_axis(shape)
    temperature = row_temperatures(temperature, shape)
    logits = random_logits(shape, dtype)
    logits.flat[0] = -np.inf
    scaled = divided(as_tensor(logits), temperature, axis)
    expected = torch.distributions.Categorical(logits=scaled.movedim(axis, -1)).entropy()
    result = csoftmax.entropy(logits, axis=axis, temperature=temperature)
    finite = logits[np.isfinite(logits)]
    assert_losses_close(result, expected.numpy(), dtype, finite / np.min(temperature))


@pytest.mark.parametrize("mask", ["causal", "boolean"])
def test_scaled_dot_product_attention(dtype, mask):
    """Queries and keys are small integers: their products are exact, in float32 too."""
    rng = np.random.default_rng(5)
    length, d = 6, 16
    q, k = rng.integers(-3, 4, size=(2, 2, 3, length, d)).astype(dtype)
    v = rng.normal(size=(2, 3, length, d)).astype(dtype)
    if mask == "causal":
        where, keywords = np.tri(length, dtype=bool), {"is_causal": True}
    else:
        where = rng.random((2, 1, length, length)) < 0.5
        # No key for one query: both results are 0.
        where[0, 0, 2] = False
        keywords = {"attn_mask": torch.tensor(where)}
    expected = functional.scaled_dot_product_attention(
        as_tensor(q), as_tensor(k), as_tensor(v), **keywords
    )
    result = csoftmax.softmax(q @ k.swapaxes(-1, -2), temperature=math.sqrt(d), where=where) @ v
    # The sum over the keys adds as many roundings.
    limit = SOFTMAX + length
    assert_close(result, expected.numpy(), dtype, limit, np.abs(v).max())
