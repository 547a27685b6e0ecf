"""What is compared: one table of operation x implementation, and the shapes to run it on.

`TABLE` maps an operation to its implementations, and each of these to a setup: a function of
(x, target, axis) that brings the NumPy arrays into the library's own form and returns the call to
be timed, a function without arguments, of whose result `np.asarray` makes an array. To add a
library, write one function per operation into `TABLE`, and its name into `PEERS`. To add a shape,
add a line to `CASES`, among those of its regime.

So that like is compared with like, a setup leaves no copying to the call, and asks for as many
threads as csoftmax uses. It also imports its library, as none of them has to be there. "out="
writes into an array made beforehand; all others allocate their result.
"""

import os
from functools import cache, lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from math import prod
from typing import NamedTuple

import numpy as np

import csoftmax
from csoftmax import reference

# Library to the modules it needs here.
PEERS = {
    "scipy": ("scipy",),
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx"),
    "jax": ("jax",),
    "sklearn": ("sklearn",),
    "llama_cpp": ("llama_cpp",),    # built from source, by CMake, so not among the extras
}

# Pure Python takes some hundred times as long, so it gets only so many numbers: fewer rows, and no
# longer ones.
NUMBERS_FOR_MATH = 10_000

# Cases of --quick have at most so many numbers.
LARGEST_QUICK = 1_000_000

# So many of the most probable classes.
K = 20

# Operation to what `sample` draws from.
FILTERS = {
    "sample": {"top_k": 50, "top_p": 0.9, "min_p": 0.05},
    "sample, top-p": {"top_p": 0.9},
    "sample, no filters": {},
}

# Ends the name of an implementation that writes into an existing array.
OUT = " out="


class Case(NamedTuple):
    """Inputs of one shape, and the operations that are measured on them."""

    regime: str
    shape: tuple
    operations: tuple
    dtype: str = "float32"
    axis: int = -1
    spread: float = 4.0    # standard deviation of a row's logits: trained models have 3 to 6

    def __str__(self):
        axis = "" if self.axis == -1 else f" axis {self.axis}"
        spread = "" if self.spread == 4 else f" spread {self.spread:g}"
        return f"{self.dtype} {'x'.join(map(str, self.shape))}{axis}{spread}"

    @property
    def size(self):
        return prod(self.shape)

    def cut(self, numbers):
        """At most so many numbers: the case with fewer rows, or with its only row shortened."""
        if self.size <= numbers:
            return self
        lengths = list(self.shape)
        classes, lengths[self.axis] = lengths[self.axis], 1
        longest = lengths.index(max(lengths)) if max(lengths) > 1 else self.axis
        lengths[self.axis] = classes
        lengths[longest] = max(1, lengths[longest] * numbers // self.size)
        return self._replace(shape=tuple(lengths))


def right_classes(target, axis):
    """An index of the logits of each row's right class."""
    index = list(np.ix_(*map(np.arange, target.shape)))
    index.insert(axis % (target.ndim + 1), target)
    return tuple(index)


def numpy_value_and_grad(logits, right, axis=-1):
    """Mean cross-entropy and its gradient in plain NumPy, from the same exponentials."""
    shifted = logits - logits.max(axis=axis, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=axis, keepdims=True)
    losses = np.log(sums).squeeze(axis) - shifted[right]
    grad = exponentials / sums
    grad[right] -= 1
    grad /= losses.size
    return losses.mean(), grad


@lru_cache(maxsize=2)
def beside(shape, dtype, kind, axis=-1):
    """What some operations get beside x: a mask, probabilities, a gradient or another model's
    logits, or temperatures."""
    rng = np.random.default_rng(1)
    if kind == "mask":
        return rng.random(shape) < 0.9
    if kind == "temperatures":
        return rng.uniform(0.5, 2, shape).astype(dtype)
    normal = rng.standard_normal(shape, dtype=dtype)
    return csoftmax.softmax(normal, axis) if kind == "probabilities" else normal


def mask_for(x):
    return beside(x.shape, x.dtype.name, "mask")


def probabilities_for(x, axis=-1):
    return beside(x.shape, x.dtype.name, "probabilities", axis)


def grad_for(x):
    return beside(x.shape, x.dtype.name, "gradient")


def temperatures_for(x, axis):
    """One for each row."""
    return beside(shape_without(x, axis), x.dtype.name, "temperatures")


def shape_without(x, axis):
    lengths = list(x.shape)
    del lengths[axis]
    return tuple(lengths)


def as_matrix(x, axis):
    """The rows, one after the other."""
    return np.ascontiguousarray(np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]))


def numpy_masked_softmax(x, mask, axis):
    return reference.numpy_softmax(np.where(mask, x, x.dtype.type(-np.inf)), axis)


def numpy_soft_value_and_grad(logits, target, axis):
    """Mean cross-entropy of probabilities and its gradient in plain NumPy."""
    log_probabilities = reference.numpy_log_softmax(logits, axis)
    losses = -(target * log_probabilities).sum(axis=axis)
    return losses.mean(), (np.exp(log_probabilities) - target) / losses.size


def numpy_kl_divergence(logits, target_logits, axis):
    log_q, log_p = (reference.numpy_log_softmax(x, axis) for x in (logits, target_logits))
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=axis).mean()


def numpy_kl_value_and_grad(logits, target_logits, axis):
    log_q, log_p = (reference.numpy_log_softmax(x, axis) for x in (logits, target_logits))
    p = np.exp(log_p)
    divergences = (p * (log_p - log_q)).sum(axis=axis)
    return divergences.mean(), (np.exp(log_q) - p) / divergences.size


def scipy_kl_divergence(logits, target_logits, axis):
    special = import_module("scipy.special")

    def call():
        p, q = special.softmax(target_logits, axis), special.softmax(logits, axis)
        return special.rel_entr(p, q).sum(axis=axis).mean()

    return call


def numpy_nll_loss(log_probabilities, right):
    return -log_probabilities[right].mean()


def numpy_softmax_vjp(grad, y, axis):
    return y * (grad - (grad * y).sum(axis=axis, keepdims=True))


def numpy_log_softmax_vjp(grad, log_y, axis):
    return grad - np.exp(log_y) * grad.sum(axis=axis, keepdims=True)


def numpy_softmax_jacobian(y):
    return y[..., np.newaxis] * (np.eye(y.shape[-1], dtype=y.dtype) - y[..., np.newaxis, :])


def numpy_entropy(x, axis):
    log_probabilities = reference.numpy_log_softmax(x, axis)
    return -(np.exp(log_probabilities) * log_probabilities).sum(axis=axis)


def numpy_top_log_probs(x, k, axis=-1):
    log_probs = np.moveaxis(reference.numpy_log_softmax(x, axis), axis, -1)
    indices = np.argpartition(log_probs, -k)[..., -k:]
    log_probs = np.take_along_axis(log_probs, indices, -1)
    order = np.argsort(-log_probs)
    return tuple(
        np.moveaxis(np.take_along_axis(one, order, -1), -1, axis) for one in (indices, log_probs)
    )


def numpy_kept(probabilities, top_k=None, top_p=1.0, min_p=0.0):
    """The classes of one row that filters leave, in the order of their numbers."""
    if top_k is None or top_k >= len(probabilities):
        order = np.argsort(-probabilities)
    else:
        order = np.argpartition(-probabilities, top_k)[:top_k]
        order = order[np.argsort(-probabilities[order])]
    p = probabilities[order]
    cumulative = p.cumsum(dtype=np.float64)
    kept = (cumulative - p < top_p * cumulative[-1]) & (p >= min_p * p[0])
    return np.sort(order[kept])


def numpy_sample(x, rng, axis=-1, **filters):
    """A class of each row. In this order of the classes, the one that csoftmax draws by `rng`."""
    probabilities = np.moveaxis(reference.numpy_softmax(x, axis), axis, -1)
    drawn = np.empty(probabilities.shape[:-1], np.int64)
    for row in np.ndindex(drawn.shape):
        p = probabilities[row]
        if filters:
            kept = numpy_kept(p, **filters)
            drawn[row] = rng.choice(kept, p=p[kept] / p[kept].sum())
        else:
            drawn[row] = rng.choice(len(p), p=p)
    return drawn


def numpy_sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_log_sigmoid(x):
    return -np.logaddexp(0, -x)


def numpy_binary_cross_entropy(x, target):
    return (np.logaddexp(0, x) - target * x).mean()


def numpy_binary_value_and_grad(x, target):
    return numpy_binary_cross_entropy(x, target), (numpy_sigmoid(x) - target) / x.size


def math_rows(function, x):
    """Pure Python on lists of floats, row by row."""
    if x.ndim == 1:
        return partial(function, x.tolist())
    rows = x.tolist()
    return lambda: [function(row) for row in rows]


@cache
def torch():
    torch = import_module("torch")
    torch.set_num_threads(csoftmax.get_num_threads())
    return torch


def torch_input(x):
    """A tensor that autograd ignores; the call itself would lose microseconds entering the mode."""
    with torch().inference_mode():
        return torch().from_numpy(x)


def torch_out(function, x, axis):
    x = torch_input(x)
    return partial(function, x, axis, out=torch().empty_like(x))


def torch_masked_softmax(x, mask, axis):
    x, left_out = torch_input(x), torch_input(~mask)
    return lambda: torch().softmax(x.masked_fill(left_out, -np.inf), axis)


def torch_softmax_vjp(x, axis):
    """The function that PyTorch's autograd calls."""
    y, grad = torch_input(csoftmax.softmax(x, axis)), torch_input(grad_for(x))
    return partial(torch()._softmax_backward_data, grad, y, axis, y.dtype)


def torch_log_softmax_vjp(x, axis):
    log_y, grad = torch_input(csoftmax.log_softmax(x, axis)), torch_input(grad_for(x))
    return partial(torch()._log_softmax_backward_data, grad, log_y, axis, log_y.dtype)


def torch_softmax_jacobian(x):
    y = torch_input(csoftmax.softmax(x))
    return lambda: torch().diag_embed(y) - y.unsqueeze(-1) * y.unsqueeze(-2)


def torch_entropy(x, axis):
    x = torch_input(np.moveaxis(x, axis, -1))
    categorical = torch().distributions.Categorical
    return lambda: categorical(logits=x, validate_args=False).entropy()


def torch_kl_divergence(x, target, axis):
    functional = torch().nn.functional
    log_q, log_p = functional.log_softmax(x, axis), functional.log_softmax(target, axis)
    rows = x.numel() // x.shape[axis]
    return functional.kl_div(log_q, log_p, reduction="sum", log_target=True) / rows


def torch_kl_value_and_grad(x, target, axis):
    x, target = torch().from_numpy(x).requires_grad_(), torch().from_numpy(target)

    def call():
        loss = torch_kl_divergence(x, target, axis)
        (grad,) = torch().autograd.grad(loss, x)
        return loss.detach(), grad

    return call


def torch_value_and_grad(x, target, loss="cross_entropy"):
    """PyTorch's classes are along the second axis, as they are in all the cases."""
    x = torch().from_numpy(x).requires_grad_()
    target = torch().from_numpy(target)
    function = getattr(torch().nn.functional, loss)

    def call():
        loss = function(x, target)
        (grad,) = torch().autograd.grad(loss, x)
        return loss.detach(), grad

    return call


def torch_top_log_probs(x, k, axis):
    x = torch_input(x)
    return lambda: torch().log_softmax(x, axis).topk(k, axis)[::-1]


def torch_sample(x, axis, top_k=None, top_p=1.0, min_p=0.0):
    """The filters go through what `topk` or `sort` gives; transformers' all go through all."""
    rows = torch_input(as_matrix(x, axis))

    def draw(logits):
        p = logits.softmax(-1)
        if top_p < 1:
            p = p.masked_fill(p.cumsum(-1) - p >= top_p, 0)
        if min_p > 0:
            p = p.masked_fill(p < min_p * p[:, :1], 0)
        return p.multinomial(1)

    def call():
        if top_k is None and top_p == 1:
            return draw(rows)
        logits, classes = (
            rows.sort(descending=True) if top_k is None else rows.topk(min(top_k, rows.shape[1]))
        )
        return classes.gather(-1, draw(logits))

    return call


def llama_cpp_sample(x, axis, top_k=None, top_p=1.0, min_p=0.0):
    """llama.cpp's samplers, of which those without effect return at once.

    They work on one row at a time, in place, and in one thread.
    """
    llama, rows = import_module("llama_cpp"), as_matrix(x, axis)
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    for sampler in (
        llama.llama_sampler_init_top_k(top_k or 0),
        llama.llama_sampler_init_top_p(top_p, 1),
        llama.llama_sampler_init_min_p(min_p, 1),
        llama.llama_sampler_init_dist(0),
    ):
        llama.llama_sampler_chain_add(chain, sampler)
    tokens = np.zeros(rows.shape[1], llama.llama_token_data)
    data = tokens.ctypes.data_as(llama.llama_token_data_p)

    def draw(row):
        tokens["id"] = np.arange(len(row))
        tokens["logit"] = row
        array = llama.llama_token_data_array(data, len(row), -1, False)
        llama.llama_sampler_apply(chain, array)
        return tokens["id"][array.selected]

    return lambda: [draw(row) for row in rows]


@cache
def onnx_session(operator, dtype, axis, threads):
    """A session for a model of one node, which is all that ONNX Runtime needs for an operation."""
    onnxruntime, helper = import_module("onnxruntime"), import_module("onnx.helper")
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    int64 = helper.np_dtype_to_tensor_dtype(np.dtype(np.int64))
    inputs = [helper.make_tensor_value_info("x", element, None)]
    names, constants, attributes = ["x"], [], {"axis": axis}
    if operator == "ReduceLogSumExp":
        names.append("axes")
        constants.append(helper.make_tensor("axes", int64, [1], [axis]))
        attributes = {"keepdims": 0}
    if operator == "SoftmaxCrossEntropyLoss":
        names.append("target")
        inputs.append(helper.make_tensor_value_info("target", int64, None))
        attributes = {"reduction": "mean"}
    node = helper.make_node(operator, names, ["y"], **attributes)
    result = helper.make_tensor_value_info("y", element, None)
    graph = helper.make_graph([node], operator, inputs, [result], constants)
    # Not the newest versions of the format, which a release of the runtime may not know yet.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def onnx_call(operator, x, axis, threads=None, **others):
    """`threads`: as many as csoftmax if None, ONNX Runtime's own choice if 0."""
    threads = csoftmax.get_num_threads() if threads is None else threads
    session = onnx_session(operator, x.dtype, axis, threads)
    inputs = {"x": x, **others}
    return lambda: session.run(None, inputs)[0]


def onnx_out(operator, x, axis):
    session = onnx_session(operator, x.dtype, axis, csoftmax.get_num_threads())
    out = np.empty_like(x)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y", "cpu", 0, out.dtype, out.shape, out.ctypes.data)

    def call():
        session.run_with_iobinding(binding)
        return out

    return call


@cache
def jax():
    # XLA reads the size of its thread pool from here when it starts, and has no function for it.
    os.environ["PJRT_NPROC"] = str(csoftmax.get_num_threads())
    jax = import_module("jax")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    return jax


def jax_call(function, *arrays):
    compiled = jax().jit(function)
    arrays = [jax().device_put(array) for array in arrays]
    return lambda: compiled(*arrays).block_until_ready()


def jax_softmax_and_logsumexp(x, axis):
    """XLA makes one sweep for the maxima and the sums of both."""
    return jax().nn.softmax(x, axis), jax().nn.logsumexp(x, axis)


def both(first, second, x, axis):
    return lambda: (first(x, axis), second(x, axis))


def numpy_grad_and_hess(logits, right, axis=-1):
    """What users write as a boosting objective."""
    p = reference.numpy_softmax(logits, axis)
    grad = p.copy()
    grad[right] -= 1
    return grad, p * (1 - p)


def torch_grad_and_hess(x, target, axis):
    x, target = torch_input(x), torch_input(target).unsqueeze(axis)

    def call():
        p = torch().softmax(x, axis)
        minus_one = torch().full_like(target, -1, dtype=p.dtype)
        return p.scatter_add(axis, target, minus_one), p * (1 - p)

    return call


def jax_grad_and_hess(x, target, axis):
    p = jax().nn.softmax(x, axis)
    return p - jax().nn.one_hot(target, x.shape[axis], axis=axis, dtype=p.dtype), p * (1 - p)


def numpy_weighted_logsumexp(x, b, axis):
    maximum = x.max(axis=axis, keepdims=True)
    return np.log((b * np.exp(x - maximum)).sum(axis=axis)) + maximum.squeeze(axis)


def torch_weighted_logsumexp(x, b, axis):
    maximum = x.amax(axis, keepdim=True)
    return (b * (x - maximum).exp()).sum(axis).log() + maximum.squeeze(axis)


def jax_nll_loss(log_probabilities, target, axis):
    target = jax().numpy.expand_dims(target, axis)
    return -jax().numpy.take_along_axis(log_probabilities, target, axis).mean()


def jax_loss(logits, target, axis):
    return jax_nll_loss(jax().nn.log_softmax(logits, axis), target, axis)


@cache
def jax_loss_along(axis):
    """One object for all calls, or XLA would compile it for each of the rows of `accuracy`."""
    return partial(jax_loss, axis=axis)


def jax_soft_loss(logits, target, axis):
    return -(jax().nn.log_softmax(logits, axis) * target).sum(axis=axis).mean()


def jax_kl_divergence(logits, target_logits, axis):
    log_q, log_p = (jax().nn.log_softmax(x, axis) for x in (logits, target_logits))
    return (jax().numpy.exp(log_p) * (log_p - log_q)).sum(axis=axis).mean()


def jax_softmax_vjp(x, axis):
    y = csoftmax.softmax(x, axis)
    return jax_call(partial(numpy_softmax_vjp, axis=axis), grad_for(x), y)


def jax_log_softmax_vjp(grad, log_y, axis):
    return grad - jax().numpy.exp(log_y) * grad.sum(axis=axis, keepdims=True)


def jax_entropy(x, axis):
    log_probabilities = jax().nn.log_softmax(x, axis)
    return -(jax().numpy.exp(log_probabilities) * log_probabilities).sum(axis=axis)


def jax_binary_cross_entropy(x, target, axis=None):
    return (jax().numpy.logaddexp(0, x) - target * x).mean()


def jax_pair(function, *arrays):
    compiled = jax().jit(function)
    arrays = [jax().device_put(array) for array in arrays]
    return lambda: jax().block_until_ready(compiled(*arrays))


def jax_value_and_grad(x, target, axis, loss=jax_loss):
    compiled = jax().jit(jax().value_and_grad(partial(loss, axis=axis)))
    x, target = jax().device_put(x), jax().device_put(target)
    return lambda: jax().block_until_ready(compiled(x, target))


def sklearn_loss(method, x, target):
    """A method of the loss in LogisticRegression; weights 1/N make its sum the mean."""
    loss = import_module("sklearn._loss.loss").HalfMultinomialLoss(n_classes=x.shape[-1])
    weight = np.full(len(x), 1 / len(x), x.dtype)
    threads = csoftmax.get_num_threads()
    return partial(getattr(loss, method), target.astype(x.dtype), x, weight, n_threads=threads)


def sklearn_cross_entropy(x, target):
    losses = sklearn_loss("loss", x, target)
    return lambda: losses().sum()


def sklearn_value_and_grad(x, target):
    losses_and_grad = sklearn_loss("loss_gradient", x, target)

    def call():
        losses, grad = losses_and_grad()
        return losses.sum(), grad

    return call


def rowwise(name, operator):
    """The contenders of softmax or log_softmax, which have the same name everywhere but in ONNX."""
    return {
        "csoftmax": lambda x, t, axis: partial(getattr(csoftmax, name), x, axis),
        "csoftmax out=": lambda x, t, axis: partial(
            getattr(csoftmax, name), x, axis, out=np.empty_like(x)
        ),
        "numpy": lambda x, t, axis: partial(getattr(reference, f"numpy_{name}"), x, axis),
        "math": lambda x, t, axis: math_rows(getattr(reference, f"math_{name}"), x),
        "scipy": lambda x, t, axis: partial(getattr(import_module("scipy.special"), name), x, axis),
        "torch": lambda x, t, axis: partial(getattr(torch(), name), torch_input(x), axis),
        "torch out=": lambda x, t, axis: torch_out(getattr(torch(), name), x, axis),
        "onnxruntime": lambda x, t, axis: onnx_call(operator, x, axis),
        "onnxruntime out=": lambda x, t, axis: onnx_out(operator, x, axis),
        "jax": lambda x, t, axis: jax_call(partial(getattr(jax().nn, name), axis=axis), x),
    }


def softmax_at(temperature, divisor):
    """The contenders of softmax at a temperature of (x, axis); all but csoftmax have to divide."""

    def divided(softmax, x, divisor, axis):
        return lambda: softmax(x / divisor, axis)

    def torch_divided(x, axis):
        by = divisor(x, axis)
        by = torch_input(by) if isinstance(by, np.ndarray) else by
        return divided(torch().softmax, torch_input(x), by, axis)

    def jax_divided(x, axis):
        return jax_call(lambda x, by: jax().nn.softmax(x / by, axis), x, divisor(x, axis))

    return {
        "csoftmax": lambda x, t, axis: partial(
            csoftmax.softmax, x, axis, temperature=temperature(x, axis)
        ),
        "csoftmax out=": lambda x, t, axis: partial(
            csoftmax.softmax, x, axis, temperature=temperature(x, axis), out=np.empty_like(x)
        ),
        "numpy": lambda x, t, axis: divided(reference.numpy_softmax, x, divisor(x, axis), axis),
        "scipy": lambda x, t, axis: divided(
            import_module("scipy.special").softmax, x, divisor(x, axis), axis
        ),
        "torch": lambda x, t, axis: torch_divided(x, axis),
        "jax": lambda x, t, axis: jax_divided(x, axis),
    }


def sampling(**filters):
    """The contenders of a draw from each row, each with its own random numbers."""
    return {
        "csoftmax": lambda x, t, axis: partial(
            csoftmax.sample, x, axis, rng=np.random.default_rng(0), **filters
        ),
        "numpy": lambda x, t, axis: partial(
            numpy_sample, x, np.random.default_rng(0), axis, **filters
        ),
        "torch": lambda x, t, axis: torch_sample(x, axis, **filters),
        "llama_cpp": lambda x, t, axis: llama_cpp_sample(x, axis, **filters),
    }


TABLE = {
    "softmax": rowwise("softmax", "Softmax")
    | {
        "sklearn": lambda x, t, axis: partial(import_module("sklearn.utils.extmath").softmax, x),
    },
    "log_softmax": rowwise("log_softmax", "LogSoftmax"),
    "logsumexp": {
        "csoftmax": lambda x, t, axis: partial(csoftmax.logsumexp, x, axis),
        "numpy": lambda x, t, axis: partial(reference.numpy_logsumexp, x, axis),
        "math": lambda x, t, axis: math_rows(reference.math_logsumexp, x),
        "scipy": lambda x, t, axis: partial(import_module("scipy.special").logsumexp, x, axis),
        "torch": lambda x, t, axis: partial(torch().logsumexp, torch_input(x), axis),
        "onnxruntime": lambda x, t, axis: onnx_call("ReduceLogSumExp", x, axis),
        "jax": lambda x, t, axis: jax_call(partial(jax().nn.logsumexp, axis=axis), x),
    },
    "weighted logsumexp": {
        "csoftmax": lambda x, t, axis: partial(csoftmax.logsumexp, x, axis, b=probabilities_for(x)),
        "numpy": lambda x, t, axis: partial(
            numpy_weighted_logsumexp, x, probabilities_for(x), axis
        ),
        "scipy": lambda x, t, axis: partial(
            import_module("scipy.special").logsumexp, x, axis, probabilities_for(x)
        ),
        "torch": lambda x, t, axis: partial(
            torch_weighted_logsumexp, torch_input(x), torch_input(probabilities_for(x)), axis
        ),
        "jax": lambda x, t, axis: jax_call(
            lambda x, b: import_module("jax.scipy.special").logsumexp(x, axis, b),
            x, probabilities_for(x),
        ),
    },
    "softmax + logsumexp": {
        "csoftmax": lambda x, t, axis: partial(csoftmax.softmax_and_logsumexp, x, axis),
        "csoftmax out=": lambda x, t, axis: partial(
            csoftmax.softmax_and_logsumexp, x, axis, out=np.empty_like(x)
        ),
        "numpy": lambda x, t, axis: both(
            reference.numpy_softmax, reference.numpy_logsumexp, x, axis
        ),
        "scipy": lambda x, t, axis: both(
            import_module("scipy.special").softmax, import_module("scipy.special").logsumexp, x,
            axis,
        ),
        "torch": lambda x, t, axis: both(
            torch().softmax, torch().logsumexp, torch_input(x), axis
        ),
        "jax": lambda x, t, axis: jax_pair(partial(jax_softmax_and_logsumexp, axis=axis), x),
    },
    "cross_entropy": {
        "csoftmax": lambda x, t, axis: partial(csoftmax.cross_entropy, x, t, axis),
        "numpy": lambda x, t, axis: partial(reference.numpy_cross_entropy, x, t, axis),
        "math": lambda x, t, axis: partial(reference.math_cross_entropy, x.tolist(), t.tolist()),
        "torch": lambda x, t, axis: partial(
            torch().nn.functional.cross_entropy, torch_input(x), torch_input(t)
        ),
        "onnxruntime": lambda x, t, axis: onnx_call("SoftmaxCrossEntropyLoss", x, axis, target=t),
        "jax": lambda x, t, axis: jax_call(jax_loss_along(axis), x, t),
        "sklearn": lambda x, t, axis: sklearn_cross_entropy(x, t),
    },
    "cross_entropy + grad": {
        "csoftmax": lambda x, t, axis: partial(csoftmax.cross_entropy_value_and_grad, x, t, axis),
        "csoftmax out=": lambda x, t, axis: partial(
            csoftmax.cross_entropy_value_and_grad, x, t, axis, out=np.empty_like(x)
        ),
        "numpy": lambda x, t, axis: partial(numpy_value_and_grad, x, right_classes(t, axis), axis),
        "torch": lambda x, t, axis: torch_value_and_grad(x, t),
        "jax": lambda x, t, axis: jax_value_and_grad(x, t, axis),
        "sklearn": lambda x, t, axis: sklearn_value_and_grad(x, t),
    },
    "cross_entropy grad + hess": {
        "csoftmax": lambda x, t, axis: partial(csoftmax.cross_entropy_grad_and_hess, x, t, axis),
        "numpy": lambda x, t, axis: partial(
            numpy_grad_and_hess, x, right_classes(t, axis), axis
        ),
        "torch": lambda x, t, axis: torch_grad_and_hess(x, t, axis),
        "jax": lambda x, t, axis: jax_pair(partial(jax_grad_and_hess, axis=axis), x, t),
    },
    "nll_loss": {
        "csoftmax": lambda x, t, axis: partial(
            csoftmax.nll_loss, csoftmax.log_softmax(x, axis), t, axis
        ),
        "numpy": lambda x, t, axis: partial(
            numpy_nll_loss, csoftmax.log_softmax(x, axis), right_classes(t, axis)
        ),
        "torch": lambda x, t, axis: partial(
            torch().nn.functional.nll_loss,
            torch_input(csoftmax.log_softmax(x, axis)), torch_input(t),
        ),
        "jax": lambda x, t, axis: jax_call(
            partial(jax_nll_loss, axis=axis), csoftmax.log_softmax(x, axis), t
        ),
    },
    "softmax, T=0.7": softmax_at(lambda x, axis: 0.7, lambda x, axis: 0.7),
    "softmax, T by row": softmax_at(
        temperatures_for, lambda x, axis: np.expand_dims(temperatures_for(x, axis), axis)
    ),
    "masked softmax": {
        "csoftmax": lambda x, t, axis: partial(csoftmax.softmax, x, axis, where=mask_for(x)),
        "csoftmax out=": lambda x, t, axis: partial(
            csoftmax.softmax, x, axis, where=mask_for(x), out=np.empty_like(x)
        ),
        "numpy": lambda x, t, axis: partial(numpy_masked_softmax, x, mask_for(x), axis),
        "torch": lambda x, t, axis: torch_masked_softmax(x, mask_for(x), axis),
        "jax": lambda x, t, axis: jax_call(
            lambda x, mask: jax().nn.softmax(x, axis, where=mask), x, mask_for(x)
        ),
    },
    "soft targets + grad": {
        "csoftmax": lambda x, t, axis: partial(
            csoftmax.cross_entropy_value_and_grad, x, probabilities_for(x, axis), axis
        ),
        "csoftmax out=": lambda x, t, axis: partial(
            csoftmax.cross_entropy_value_and_grad, x, probabilities_for(x, axis), axis,
            out=np.empty_like(x),
        ),
        "numpy": lambda x, t, axis: partial(
            numpy_soft_value_and_grad, x, probabilities_for(x, axis), axis
        ),
        "torch": lambda x, t, axis: torch_value_and_grad(x, probabilities_for(x, axis)),
        "jax": lambda x, t, axis: jax_value_and_grad(
            x, probabilities_for(x, axis), axis, jax_soft_loss
        ),
    },
    "kl_divergence": {
        "csoftmax": lambda x, t, axis: partial(csoftmax.kl_divergence, x, grad_for(x), axis),
        "numpy": lambda x, t, axis: partial(numpy_kl_divergence, x, grad_for(x), axis),
        "scipy": lambda x, t, axis: scipy_kl_divergence(x, grad_for(x), axis),
        "torch": lambda x, t, axis: partial(
            torch_kl_divergence, torch_input(x), torch_input(grad_for(x)), axis
        ),
        "jax": lambda x, t, axis: jax_call(
            partial(jax_kl_divergence, axis=axis), x, grad_for(x)
        ),
    },
    "kl_divergence + grad": {
        "csoftmax": lambda x, t, axis: partial(
            csoftmax.kl_divergence_value_and_grad, x, grad_for(x), axis
        ),
        "csoftmax out=": lambda x, t, axis: partial(
            csoftmax.kl_divergence_value_and_grad, x, grad_for(x), axis, out=np.empty_like(x)
        ),
        "numpy": lambda x, t, axis: partial(numpy_kl_value_and_grad, x, grad_for(x), axis),
        "torch": lambda x, t, axis: torch_kl_value_and_grad(x, grad_for(x), axis),
        "jax": lambda x, t, axis: jax_value_and_grad(x, grad_for(x), axis, jax_kl_divergence),
    },
    "softmax_vjp": {
        "csoftmax": lambda x, t, axis: partial(
            csoftmax.softmax_vjp, grad_for(x), csoftmax.softmax(x, axis), axis
        ),
        "numpy": lambda x, t, axis: partial(
            numpy_softmax_vjp, grad_for(x), csoftmax.softmax(x, axis), axis
        ),
        "torch": lambda x, t, axis: torch_softmax_vjp(x, axis),
        "jax": lambda x, t, axis: jax_softmax_vjp(x, axis),
    },
    "log_softmax_vjp": {
        "csoftmax": lambda x, t, axis: partial(
            csoftmax.log_softmax_vjp, grad_for(x), csoftmax.log_softmax(x, axis), axis
        ),
        "numpy": lambda x, t, axis: partial(
            numpy_log_softmax_vjp, grad_for(x), csoftmax.log_softmax(x, axis), axis
        ),
        "torch": lambda x, t, axis: torch_log_softmax_vjp(x, axis),
        "jax": lambda x, t, axis: jax_call(
            partial(jax_log_softmax_vjp, axis=axis), grad_for(x), csoftmax.log_softmax(x, axis)
        ),
    },
    "softmax_jacobian": {
        "csoftmax": lambda x, t, axis: partial(
            csoftmax.softmax_jacobian, csoftmax.softmax(x, axis), axis
        ),
        "numpy": lambda x, t, axis: partial(numpy_softmax_jacobian, csoftmax.softmax(x, axis)),
        "torch": lambda x, t, axis: torch_softmax_jacobian(x),
    },
    "entropy": {
        "csoftmax": lambda x, t, axis: partial(csoftmax.entropy, x, axis),
        "numpy": lambda x, t, axis: partial(numpy_entropy, x, axis),
        "torch": lambda x, t, axis: torch_entropy(x, axis),
        "jax": lambda x, t, axis: jax_call(partial(jax_entropy, axis=axis), x),
    },
    "sigmoid": {
        "csoftmax": lambda x, t, axis: partial(csoftmax.sigmoid, x),
        "csoftmax out=": lambda x, t, axis: partial(csoftmax.sigmoid, x, out=np.empty_like(x)),
        "numpy": lambda x, t, axis: partial(numpy_sigmoid, x),
        "scipy": lambda x, t, axis: partial(import_module("scipy.special").expit, x),
        "torch": lambda x, t, axis: partial(torch().sigmoid, torch_input(x)),
        "torch out=": lambda x, t, axis: partial(
            torch().sigmoid, torch_input(x), out=torch().empty_like(torch_input(x))
        ),
        "jax": lambda x, t, axis: jax_call(jax().nn.sigmoid, x),
    },
    "log_sigmoid": {
        "csoftmax": lambda x, t, axis: partial(csoftmax.log_sigmoid, x),
        "csoftmax out=": lambda x, t, axis: partial(csoftmax.log_sigmoid, x, out=np.empty_like(x)),
        "numpy": lambda x, t, axis: partial(numpy_log_sigmoid, x),
        "scipy": lambda x, t, axis: partial(import_module("scipy.special").log_expit, x),
        "torch": lambda x, t, axis: partial(torch().nn.functional.logsigmoid, torch_input(x)),
        "jax": lambda x, t, axis: jax_call(jax().nn.log_sigmoid, x),
    },
    "binary_cross_entropy": {
        "csoftmax": lambda x, t, axis: partial(
            csoftmax.binary_cross_entropy, x, probabilities_for(x)
        ),
        "numpy": lambda x, t, axis: partial(numpy_binary_cross_entropy, x, probabilities_for(x)),
        "torch": lambda x, t, axis: partial(
            torch().nn.functional.binary_cross_entropy_with_logits,
            torch_input(x), torch_input(probabilities_for(x)),
        ),
        "jax": lambda x, t, axis: jax_call(jax_binary_cross_entropy, x, probabilities_for(x)),
    },
    "binary_cross_entropy + grad": {
        "csoftmax": lambda x, t, axis: partial(
            csoftmax.binary_cross_entropy_value_and_grad, x, probabilities_for(x)
        ),
        "csoftmax out=": lambda x, t, axis: partial(
            csoftmax.binary_cross_entropy_value_and_grad, x, probabilities_for(x),
            out=np.empty_like(x),
        ),
        "numpy": lambda x, t, axis: partial(numpy_binary_value_and_grad, x, probabilities_for(x)),
        "torch": lambda x, t, axis: torch_value_and_grad(
            x, probabilities_for(x), "binary_cross_entropy_with_logits"
        ),
        "jax": lambda x, t, axis: jax_value_and_grad(
            x, probabilities_for(x), axis, jax_binary_cross_entropy
        ),
    },
    "top_log_probs": {
        "csoftmax": lambda x, t, axis: partial(
            csoftmax.top_log_probs, x, min(K, x.shape[axis]), axis
        ),
        "numpy": lambda x, t, axis: partial(numpy_top_log_probs, x, min(K, x.shape[axis]), axis),
        "torch": lambda x, t, axis: torch_top_log_probs(x, min(K, x.shape[axis]), axis),
    },
    **{operation: sampling(**filters) for operation, filters in FILTERS.items()},
}

EVERYTHING = tuple(TABLE)
SAMPLING = ("top_log_probs", *FILTERS)
ALL = tuple(operation for operation in TABLE if operation not in ("softmax_jacobian", *SAMPLING))
SOFTMAX = ("softmax",)
SOFTMAXES = ("softmax", "log_softmax")
WITHOUT_LOSS = ("softmax", "log_softmax", "logsumexp", "weighted logsumexp")

CASES = [
    Case("one small row", (3,), SOFTMAXES),
    Case("one small row", (10,), SOFTMAXES),
    Case("one small row", (64,), SOFTMAXES),
    Case("one small row", (10,), SOFTMAXES, "float64"),
    Case("small rows", (100, 10), EVERYTHING),
    Case("small rows", (100, 10), ALL, "float64"),
    Case("few classes", (1_000_000, 3), SOFTMAX),
    Case("few classes", (1_000_000, 10), ALL),
    Case("few classes", (1_000_000, 33), SOFTMAXES),
    Case("few classes", (1_000_000, 10), SOFTMAXES, "float64"),
    Case("rows in cache", (10_000, 100), SOFTMAXES),
    Case("rows in cache", (1000, 1000), ALL),
    Case("rows in cache", (1000, 1000), ALL, "float64"),
    Case("rows in cache", (1000, 1000), SOFTMAXES, spread=1),
    Case("rows in cache", (200, 5000), SOFTMAXES),
    Case("a vocabulary", (8, 128_256), WITHOUT_LOSS),
    Case("a vocabulary", (64, 50_257), ALL),
    Case("a vocabulary", (8, 128_256), WITHOUT_LOSS, "float64"),
    Case("a vocabulary", (1, 128_256), SOFTMAXES + SAMPLING),
    Case("a vocabulary", (8, 32_000), SOFTMAXES + SAMPLING),
    Case("one huge row", (1, 10_000_000), WITHOUT_LOSS),
    Case("larger than the cache", (30_000, 777), ALL),
    Case("larger than the cache", (30_000, 777), SOFTMAX, "float64"),
    Case("larger than the cache", (100_000, 1000), SOFTMAX),
    Case("groups of columns", (2000, 10, 3), ALL + SAMPLING, axis=1),
    Case("other axes", (1000, 10_000), WITHOUT_LOSS, axis=0),
    Case("other axes", (8, 21, 256, 256), SOFTMAXES, axis=1),
    Case("other axes", (64, 10, 7, 7), SOFTMAXES, axis=1),
    Case("other axes", (1000, 10_000), SOFTMAX, "float64", axis=0),
]


def quick_cases():
    """The first two cases of each regime, cut down."""
    regimes = groupby(CASES, key=lambda case: case.regime)
    return [case.cut(LARGEST_QUICK) for _, cases in regimes for case in list(cases)[:2]]


def installed(library):
    """Whether a library is there; one that is but doesn't import raises later, when it is used."""
    return all(find_spec(module) for module in PEERS.get(library, ()))


def contenders(case):
    """What can be run on a case, in pairs of operation and implementation."""
    return [
        (operation, implementation)
        for operation in case.operations
        for implementation in TABLE[operation]
        if installed(implementation.removesuffix(OUT)) and accepts(implementation, case)
    ]


def accepts(implementation, case):
    """Whether an implementation can do such a shape, in bearable time."""
    match implementation:
        case "math":
            return case.axis == -1 and case.shape[-1] <= NUMBERS_FOR_MATH
        case "llama_cpp":
            return case.dtype == "float32"
        case "sklearn":
            return case.axis == -1 and len(case.shape) == 2
    return True


def call_for(operation, implementation, case):
    """The call to be timed."""
    return TABLE[operation][implementation](*inputs_for(implementation, case), case.axis)


@lru_cache(maxsize=1)
def inputs(case):
    """Logits and class indices. Every row has its own height, as `x - max` then has to round."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(case.shape, dtype=case.dtype)
    x *= case.spread
    rows = shape_without(x, case.axis)
    x += np.expand_dims(rng.uniform(-30, 30, rows).astype(case.dtype), case.axis)
    return x, rng.integers(case.shape[case.axis], size=rows)


def part_for(implementation, case):
    """The case itself, or as many of its rows as an implementation gets."""
    return case.cut(NUMBERS_FOR_MATH) if implementation == "math" else case


def inputs_for(implementation, case):
    x, target = inputs(case)
    part = part_for(implementation, case)
    if part == case:
        return x, target
    rows, _ = part.shape
    return x[:rows], target[:rows]


def label(implementation, case):
    """The implementation's name, and the number of rows where that is not all."""
    part = part_for(implementation, case)
    if part == case:
        return implementation
    rows, _ = part.shape
    return f"{implementation}, {rows} row{'s' if rows > 1 else ''}"
