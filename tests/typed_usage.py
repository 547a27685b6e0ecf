"""What the stubs say of calls. mypy reads this, tests/test_types.py runs it."""

import enum
from typing import Any, Literal, assert_type

import dask.array as da
import numpy as np
from numpy.typing import NDArray

import csoftmax as cs


class DeviceType(enum.IntEnum):
    CPU = 1


class OnlyDLPack:
    """As PyTorch, JAX and CuPy write it."""

    def __dlpack__(self, **keywords: Any) -> object:
        return np.eye(3).__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[DeviceType, int]:
        return DeviceType.CPU, 0


class OnlyArray:
    """As pandas and xarray write it: the dtype isn't known."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.eye(3, dtype=np.float32)


DOUBLE: NDArray[np.float64] = np.eye(3)
SINGLE: NDArray[np.float32] = np.eye(3, dtype=np.float32)
HALF: NDArray[np.float16] = np.eye(3, dtype=np.float16)
INT: NDArray[np.int_] = np.eye(3, dtype=np.int_)
INT8: NDArray[np.int8] = np.eye(3, dtype=np.int8)
UINT16: NDArray[np.uint16] = np.eye(3, dtype=np.uint16)
LONGDOUBLE: NDArray[np.longdouble] = np.eye(3, dtype=np.longdouble)
UINT64: NDArray[np.uint64] = np.eye(3, dtype=np.uint64)
BOOL: NDArray[np.bool] = np.eye(3, dtype=np.bool)
COMPLEX: NDArray[np.complex128] = np.eye(3, dtype=np.complex128)
LIST = [[1.0, 2.0], [3.0, 4.0]]
INDICES = [0, 1, 2]


def dtypes() -> None:
    assert_type(cs.softmax(DOUBLE), NDArray[np.float64])
    assert_type(cs.softmax(INT), NDArray[np.float64])
    assert_type(cs.softmax(UINT64), NDArray[np.float64])
    assert_type(cs.softmax(INDICES), NDArray[np.float64])
    assert_type(cs.softmax((1.0, 2)), NDArray[np.float64])
    assert_type(cs.softmax(LIST), NDArray[np.float64])
    assert_type(cs.softmax([[LIST]]), NDArray[np.float64])
    assert_type(cs.softmax([]), NDArray[np.float64])
    assert_type(cs.softmax(SINGLE), NDArray[np.float32])
    assert_type(cs.softmax(HALF), NDArray[np.float32])
    assert_type(cs.softmax(BOOL), NDArray[np.float32])
    assert_type(cs.softmax(INT8), NDArray[np.float32])
    assert_type(cs.softmax(UINT16), NDArray[np.float32])
    assert_type(cs.softmax([SINGLE, SINGLE]), NDArray[Any])
    assert_type(cs.softmax(OnlyArray()), NDArray[Any])


def unknown(
    x: NDArray[Any],
    y: NDArray[np.floating],
    z: NDArray[np.float32 | np.float64],
    integers: NDArray[np.integer],
) -> list[NDArray[np.float64]]:
    """Usable as whatever is known elsewhere, without casts."""
    return [cs.softmax(x), cs.softmax(y), cs.softmax(z), cs.softmax(integers)]


def parameters(
    axis: int | tuple[int, ...] | None = None, out: NDArray[np.float64] | None = None
) -> None:
    assert_type(cs.softmax(DOUBLE, axis), NDArray[np.float64])
    assert_type(cs.softmax(DOUBLE, np.int64(0), temperature=np.int8(2)), NDArray[np.float64])
    assert_type(cs.softmax(DOUBLE, temperature=INDICES, where=BOOL), NDArray[np.float64])
    assert_type(cs.log_softmax(SINGLE, where=[True, False, True]), NDArray[np.float32])
    assert_type(cs.softmax(DOUBLE, out=out), NDArray[np.float64])


def outs() -> None:
    single, double = SINGLE.copy(), DOUBLE.copy()
    assert_type(cs.softmax(DOUBLE, out=single), NDArray[np.float32])
    assert_type(cs.log_softmax(INT8, out=double), NDArray[np.float64])
    assert_type(cs.logsumexp([DOUBLE, DOUBLE], out=single[:2]), NDArray[np.float32])
    assert_type(cs.softmax_vjp(DOUBLE, SINGLE, out=single), NDArray[np.float32])
    assert_type(cs.sigmoid(DOUBLE, out=single), NDArray[np.float32])
    assert_type(cs.log_sigmoid(DOUBLE, out=single), NDArray[np.float32])


def without_an_axis() -> None:
    assert_type(cs.logsumexp(DOUBLE), NDArray[np.float64] | Any)
    assert_type(cs.logsumexp(SINGLE, keepdims=True), NDArray[np.float32] | Any)
    assert_type(cs.logsumexp(OnlyArray()), NDArray[Any] | Any)
    assert_type(cs.entropy(LIST), NDArray[np.float64] | Any)
    assert_type(cs.entropy(HALF, axis=None), NDArray[np.float32] | Any)
    assert_type(cs.entropy(SINGLE, where=BOOL), NDArray[np.float32] | Any)
    both = cs.softmax_and_logsumexp
    assert_type(both(LIST), tuple[NDArray[np.float64], NDArray[np.float64] | Any])
    assert_type(both(SINGLE, where=BOOL), tuple[NDArray[np.float32], NDArray[np.float32] | Any])
    assert_type(both(INT, out=HALF.copy()), tuple[NDArray[np.float16], NDArray[Any] | Any])
    number: float = float(cs.logsumexp([1.0, 2.0]))
    assert_type(cs.logsumexp(DOUBLE, b=SINGLE), NDArray[np.float64] | Any)
    assert_type(cs.logsumexp(SINGLE, b=DOUBLE), NDArray[np.float64] | Any)
    assert_type(cs.logsumexp(SINGLE, b=INDICES), NDArray[np.float64] | Any)
    assert_type(cs.logsumexp(SINGLE, b=np.float64(2)), NDArray[np.float64] | Any)
    assert_type(cs.logsumexp(SINGLE, b=0.5), NDArray[np.float32] | Any)
    assert_type(cs.logsumexp(SINGLE, b=BOOL), NDArray[np.float32] | Any)
    assert_type(cs.logsumexp(SINGLE, b=OnlyArray()), NDArray[Any] | Any)
    array: NDArray[np.float64] = cs.logsumexp(DOUBLE)
    assert number > array[0]


def signs() -> None:
    of_double = cs.logsumexp(DOUBLE, b=SINGLE, return_sign=True)
    assert_type(of_double, tuple[NDArray[np.float64] | Any, NDArray[np.float64] | Any])
    of_single = cs.logsumexp(SINGLE, axis=None, b=-1, return_sign=True)
    assert_type(of_single, tuple[NDArray[np.float32] | Any, NDArray[np.float32] | Any])
    out: NDArray[np.float32] = np.empty(3, np.float32)
    rounded = cs.logsumexp(DOUBLE, b=DOUBLE, return_sign=True, out=out)
    assert_type(rounded, tuple[NDArray[np.float32], NDArray[Any] | Any])


def losses() -> None:
    assert_type(cs.cross_entropy(DOUBLE, INDICES), np.float64)
    assert_type(cs.cross_entropy([1.0, 2.0], 1), np.float64)
    assert_type(cs.cross_entropy(SINGLE, DOUBLE, weight=[1, 2, 3], reduction="sum"), np.float64)
    assert_type(cs.cross_entropy(OnlyArray(), INDICES), np.float64)
    assert_type(cs.cross_entropy(DOUBLE, INDICES, sample_weight=2, where=BOOL), np.float64)
    assert_type(cs.nll_loss(DOUBLE, INDICES, sample_weight=INT8[0]), np.float64)
    assert_type(cs.cross_entropy(DOUBLE, INDICES, reduction="none"), NDArray[np.float64] | Any)
    assert_type(cs.cross_entropy([1.0, 2.0], 1, reduction="none"), NDArray[np.float64] | Any)
    assert_type(cs.nll_loss(SINGLE, INDICES), np.float64)
    assert_type(cs.nll_loss(DOUBLE, INDICES, reduction="none"), NDArray[np.float64] | Any)
    assert_type(cs.kl_divergence(SINGLE, INT8, temperature=2, where=BOOL), np.float64)
    assert_type(cs.kl_divergence(SINGLE, HALF, reduction="none"), NDArray[np.float32] | Any)
    assert_type(cs.kl_divergence(SINGLE, DOUBLE, reduction="none"), NDArray[np.float64] | Any)
    assert_type(cs.binary_cross_entropy(DOUBLE, BOOL, pos_weight=2), np.float64)
    assert_type(cs.binary_cross_entropy(0.5, True), np.float64)
    assert_type(cs.binary_cross_entropy(HALF, BOOL, reduction="sum"), np.float64)
    assert_type(cs.binary_cross_entropy(np.float32(0.5), True), np.float64)
    assert_type(cs.binary_cross_entropy(INT8, BOOL, reduction="none"), NDArray[np.float32] | Any)


def losses_and_gradients() -> None:
    both = cs.cross_entropy_value_and_grad
    assert_type(both(DOUBLE, INDICES), tuple[np.float64, NDArray[np.float64]])
    assert_type(both(SINGLE, INDICES, label_smoothing=0.1), tuple[np.float64, NDArray[np.float32]])
    assert_type(both(OnlyArray(), INDICES), tuple[np.float64, NDArray[Any]])
    assert_type(
        both(SINGLE, INDICES, reduction="none"),
        tuple[NDArray[np.float32] | Any, NDArray[np.float32]],
    )
    assert_type(both(SINGLE, INDICES, out=DOUBLE.copy()), tuple[np.float64, NDArray[np.float64]])
    binary = cs.binary_cross_entropy_value_and_grad
    assert_type(binary(DOUBLE, BOOL), tuple[np.float64, NDArray[np.float64] | Any])
    assert_type(binary(SINGLE, BOOL, weight=2), tuple[np.float64, NDArray[np.float32] | Any])
    assert_type(binary(0.5, True), tuple[np.float64, NDArray[np.float64] | Any])
    assert_type(
        binary(HALF, BOOL, reduction="none"),
        tuple[NDArray[np.float32] | Any, NDArray[np.float32] | Any],
    )
    assert_type(binary(SINGLE, BOOL, out=DOUBLE.copy()), tuple[np.float64, NDArray[np.float64]])
    divergence = cs.kl_divergence_value_and_grad
    assert_type(divergence(SINGLE, HALF), tuple[np.float64, NDArray[np.float32]])
    assert_type(divergence(SINGLE[:2, :2], LIST), tuple[np.float64, NDArray[np.float64]])
    assert_type(divergence(HALF, OnlyArray()), tuple[np.float64, NDArray[Any]])


def gradients() -> None:
    assert_type(cs.softmax_vjp(DOUBLE, DOUBLE), NDArray[np.float64])
    assert_type(cs.softmax_vjp(SINGLE, DOUBLE), NDArray[np.float64])
    assert_type(cs.log_softmax_vjp(DOUBLE, SINGLE), NDArray[np.float64])
    assert_type(cs.log_softmax_vjp(SINGLE, HALF), NDArray[np.float32])
    assert_type(cs.softmax_vjp(SINGLE, OnlyArray()), NDArray[Any])
    assert_type(cs.softmax_jacobian(SINGLE), NDArray[np.float32])


def elementwise() -> None:
    assert_type(cs.sigmoid(1), np.float64)
    assert_type(cs.sigmoid(np.float16(1)), np.float32)
    assert_type(cs.sigmoid(LIST), NDArray[np.float64])
    assert_type(cs.sigmoid(INT8), NDArray[np.float32])
    assert_type(cs.sigmoid(OnlyArray()), NDArray[Any] | Any)
    assert_type(cs.log_sigmoid(1), np.float64)
    assert_type(cs.log_sigmoid(INT8), NDArray[np.float32])


def sampling() -> None:
    top = cs.top_log_probs
    assert_type(top(DOUBLE, 2), tuple[NDArray[np.int64], NDArray[np.float64]])
    assert_type(top([1.0, 2.0], np.int8(2)), tuple[NDArray[np.int64], NDArray[np.float64]])
    assert_type(top(SINGLE, 1, 0, where=BOOL), tuple[NDArray[np.int64], NDArray[np.float32]])
    assert_type(top(HALF, 3, temperature=INDICES), tuple[NDArray[np.int64], NDArray[np.float32]])
    assert_type(top(OnlyArray(), 3), tuple[NDArray[np.int64], NDArray[Any]])
    assert_type(cs.sample(DOUBLE), NDArray[np.int64] | Any)
    assert_type(cs.sample([1.0, 2.0], temperature=0), NDArray[np.int64] | Any)
    assert_type(cs.sample(SINGLE, top_k=np.int64(2), top_p=1, rng=0), NDArray[np.int64] | Any)
    rng = np.random.default_rng(0)
    assert_type(cs.sample(HALF, -1, min_p=np.float32(0.5), rng=rng), NDArray[np.int64] | Any)
    assert_type(cs.sample(OnlyArray(), where=BOOL, rng=[1, 2], size=()), NDArray[np.int64] | Any)
    assert_type(cs.sample([1.0, 2.0], size=3), NDArray[np.int64])
    assert_type(cs.sample(DOUBLE, size=(2, 0), rng=None), NDArray[np.int64] | Any)
    token: int = int(cs.sample([1.0, 2.0], rng=INT[0]))
    assert token < 2


def the_rest() -> None:
    assert_type(cs.get_num_threads(), int)
    cs.set_num_threads(np.int64(cs.get_num_threads()))
    cs.set_num_threads(None)
    cs.show_config()
    assert_type(cs.show_config("dicts")["isas_built"], list[str])
    assert_type(cs.show_config("dicts")["openmp"], bool)
    assert_type(cs.reference.numpy_softmax(LIST), NDArray[Any])
    assert_type(cs.reference.math_softmax([1.0, 2.0]), list[float])
    assert_type(cs.reference.math_cross_entropy(LIST, [0, 1]), float)


def lazy() -> None:
    from_array: Any = da.from_array    # which has no types
    x: da.Array = from_array(np.eye(3))
    reduction: Literal["mean", "none"] = "mean"
    assert_type(cs.softmax(x, temperature=cs.entropy(x)), da.Array)
    assert_type(cs.logsumexp(x), da.Array)
    assert_type(cs.logsumexp(DOUBLE, b=x), da.Array)
    assert_type(cs.logsumexp(x, b=2, return_sign=True), tuple[da.Array, da.Array])
    assert_type(cs.cross_entropy(x, x, reduction=reduction), da.Array)
    assert_type(cs.cross_entropy_value_and_grad(x, x), tuple[da.Array, da.Array])
    assert_type(cs.cross_entropy_grad_and_hess(x, x), tuple[da.Array, da.Array])
    assert_type(cs.softmax_and_logsumexp(x), tuple[da.Array, da.Array])
    assert_type(cs.kl_divergence(DOUBLE, x, reduction=reduction), da.Array)
    assert_type(cs.kl_divergence_value_and_grad(x, DOUBLE), tuple[da.Array, da.Array])
    assert_type(cs.top_log_probs(x, 2), tuple[da.Array, da.Array])
    assert_type(cs.sample(x, top_p=0.9, size=2), da.Array)
    assert_type(cs.softmax_vjp(DOUBLE, x), da.Array)
    assert_type(cs.sigmoid(x), da.Array)
    assert_type(cs.log_sigmoid(x), da.Array)
    assert_type(cs.binary_cross_entropy_value_and_grad(x, x), tuple[da.Array, da.Array])


def dlpack() -> None:
    x = OnlyDLPack()
    assert_type(cs.softmax(x, temperature=cs.entropy(x)), NDArray[Any])


# Each is refused by mypy, to which an ignore that isn't needed is an error, and by the function.
# Of what kind mypy says the error is differs from one to the other, and may between versions.
REFUSED = [
    lambda: cs.softmax(COMPLEX),  # type: ignore
    lambda: cs.softmax(COMPLEX, out=DOUBLE),  # type: ignore
    lambda: cs.softmax(LONGDOUBLE),  # type: ignore
    lambda: cs.softmax([1j, 2j]),  # type: ignore
    lambda: cs.softmax("text"),  # type: ignore
    lambda: cs.softmax(["text"]),  # type: ignore
    lambda: cs.softmax(1.0),  # type: ignore
    lambda: cs.softmax(None),  # type: ignore
    lambda: cs.softmax(x=DOUBLE),  # type: ignore
    lambda: cs.softmax(DOUBLE, 1.0),  # type: ignore
    lambda: cs.softmax(DOUBLE, [0]),  # type: ignore
    lambda: cs.softmax(DOUBLE, -1, 2.0),  # type: ignore
    lambda: cs.softmax(DOUBLE, temperature=1j),  # type: ignore
    lambda: cs.softmax(DOUBLE, temperature=None),  # type: ignore
    lambda: cs.softmax(DOUBLE, where=INT),  # type: ignore
    lambda: cs.softmax(DOUBLE, out=INT),  # type: ignore
    lambda: cs.softmax(DOUBLE, out=LIST),  # type: ignore
    lambda: cs.logsumexp(DOUBLE, temperature=2.0),  # type: ignore
    lambda: cs.logsumexp(DOUBLE, out=COMPLEX[:, 0]),  # type: ignore
    lambda: cs.logsumexp(DOUBLE, b=COMPLEX),  # type: ignore
    lambda: cs.logsumexp(a=DOUBLE),  # type: ignore
    lambda: cs.cross_entropy(logits=DOUBLE, target=INDICES),  # type: ignore
    lambda: cs.cross_entropy(DOUBLE, target=INDICES),  # type: ignore
    lambda: cs.cross_entropy(DOUBLE, COMPLEX),  # type: ignore
    lambda: cs.cross_entropy(DOUBLE, INDICES, (0, 1)),  # type: ignore
    lambda: cs.cross_entropy(DOUBLE, INDICES, ignore_index=0.5),  # type: ignore
    lambda: cs.cross_entropy(DOUBLE, INDICES, label_smoothing="1"),  # type: ignore
    lambda: cs.cross_entropy(DOUBLE, INDICES, reduction="avg"),  # type: ignore
    lambda: cs.cross_entropy(DOUBLE, INDICES, reduction=None),  # type: ignore
    lambda: cs.cross_entropy_value_and_grad(DOUBLE, INDICES, out=INT),  # type: ignore
    lambda: cs.cross_entropy(DOUBLE, INDICES, sample_weight="1"),  # type: ignore
    lambda: cs.cross_entropy(DOUBLE, INDICES, where=INT),  # type: ignore
    lambda: cs.cross_entropy_grad_and_hess(DOUBLE, INDICES, reduction="sum"),  # type: ignore
    lambda: cs.nll_loss(DOUBLE, INDICES, label_smoothing=0.1),  # type: ignore
    lambda: cs.kl_divergence(DOUBLE, COMPLEX),  # type: ignore
    lambda: cs.kl_divergence(DOUBLE, DOUBLE, None),  # type: ignore
    lambda: cs.kl_divergence(DOUBLE, DOUBLE, reduction="batchmean"),  # type: ignore
    lambda: cs.kl_divergence_value_and_grad(DOUBLE, DOUBLE, out=INT),  # type: ignore
    lambda: cs.nll_loss(DOUBLE, [0.5, 1.0, 2.0]),  # type: ignore
    lambda: cs.top_log_probs(DOUBLE),  # type: ignore
    lambda: cs.top_log_probs(DOUBLE, k=2),  # type: ignore
    lambda: cs.top_log_probs(DOUBLE, 2.0),  # type: ignore
    lambda: cs.top_log_probs(DOUBLE, None),  # type: ignore
    lambda: cs.top_log_probs(DOUBLE, 2, (0, 1)),  # type: ignore
    lambda: cs.sample(COMPLEX),  # type: ignore
    lambda: cs.sample(DOUBLE, None),  # type: ignore
    lambda: cs.sample(DOUBLE, top_k=2.0),  # type: ignore
    lambda: cs.sample(DOUBLE, top_p=None),  # type: ignore
    lambda: cs.sample(DOUBLE, min_p="0.1"),  # type: ignore
    lambda: cs.sample(DOUBLE, rng="seed"),  # type: ignore
    lambda: cs.sample(DOUBLE, rng=0.5),  # type: ignore
    lambda: cs.sample(DOUBLE, size=2.0),  # type: ignore
    lambda: cs.sample(DOUBLE, replace=False),  # type: ignore
    lambda: cs.softmax_vjp(COMPLEX, DOUBLE),  # type: ignore
    lambda: cs.softmax_vjp(DOUBLE),  # type: ignore
    lambda: cs.softmax_jacobian(DOUBLE, None),  # type: ignore
    lambda: cs.sigmoid(DOUBLE, -1),  # type: ignore
    lambda: cs.sigmoid(COMPLEX),  # type: ignore
    lambda: cs.log_sigmoid(COMPLEX),  # type: ignore
    lambda: cs.binary_cross_entropy(DOUBLE, BOOL, weight="1"),  # type: ignore
    lambda: cs.binary_cross_entropy_value_and_grad(DOUBLE, BOOL, out=INT),  # type: ignore
    lambda: cs.set_num_threads(1.0),  # type: ignore
    lambda: cs.show_config("json"),  # type: ignore
]
