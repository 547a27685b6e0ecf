"""Types of the public names; the functions, with their documentation, are in the modules beside.

What a result's type depends on is the dtype that the logits are computed in, and `out`. So most
functions have one overload each for what stays lazy, for `out`, for logits computed in float64, for
those computed in float32, and for array-likes whose dtype the type doesn't tell. They are tried in
this order: an array of unknown dtype should not be taken for float32. Means and sums are float64.
"""

# To mypy NumPy's float64 and float32 overlap. What is really hidden by an overload before it would
# be seen in tests/typed_usage.py.
# mypy: disable-error-code="overload-overlap"

from collections.abc import Sequence
from enum import Enum
from typing import Any, Literal, Protocol, SupportsIndex, TypeAlias, TypedDict, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from csoftmax import reference as reference

__all__ = [
    "__version__",
    "binary_cross_entropy",
    "binary_cross_entropy_value_and_grad",
    "cross_entropy",
    "cross_entropy_grad_and_hess",
    "cross_entropy_value_and_grad",
    "entropy",
    "get_num_threads",
    "kl_divergence",
    "kl_divergence_value_and_grad",
    "log_sigmoid",
    "log_softmax",
    "log_softmax_vjp",
    "logsumexp",
    "nll_loss",
    "reference",
    "sample",
    "set_num_threads",
    "show_config",
    "sigmoid",
    "softmax",
    "softmax_and_logsumexp",
    "softmax_jacobian",
    "softmax_vjp",
    "top_log_probs",
]

__version__: str

_T = TypeVar("_T")
_Out = TypeVar("_Out", bound=NDArray[np.floating])
_Lazy = TypeVar("_Lazy", bound=_DaskArray)

# Scalar types by what they are computed in; all that is refused is in neither. Before NumPy 2.2
# its types don't tell intp from integers of 8 or 16 bits, whose results are then float64 here.
_InFloat64: TypeAlias = (
    np.float64 | np.int32 | np.int64 | np.intp | np.uint32 | np.uint64 | np.uintp
)
_InFloat32: TypeAlias = (
    np.float32 | np.float16 | np.bool | np.int8 | np.int16 | np.uint8 | np.uint16
)

# Not recursive: a string is a sequence of strings, which are sequences of strings.
_Nested: TypeAlias = (
    Sequence[_T]
    | Sequence[Sequence[_T]]
    | Sequence[Sequence[Sequence[_T]]]
    | Sequence[Sequence[Sequence[Sequence[_T]]]]
)

# Not all that has `__array__`, which often returns arrays of an unknown dtype. A list of bools, in
# truth computed in float32, is one of numbers here, as bool is an int.
_Double: TypeAlias = NDArray[_InFloat64] | _Nested[float]
_Single: TypeAlias = NDArray[_InFloat32]

_Array: TypeAlias = _SupportsArray | _SupportsDLPack | _Nested[float | _SupportsArray]
_Real: TypeAlias = float | _Array
_Index: TypeAlias = int | _SupportsIndices | _SupportsDLPack | _Nested[int | _SupportsIndices]
_Mask: TypeAlias = bool | _SupportsMask | _SupportsDLPack | _Nested[bool | _SupportsMask]
_Axes: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...] | None

# Without an axis an array stays, or a scalar, which depends on the number of axes. That is seldom
# in a type; a union of both would have to be narrowed at every use. So, as in typeshed: arrays are
# what is completed and checked, and the result may be used as either.
_Rows64: TypeAlias = NDArray[np.float64] | Any
_Rows32: TypeAlias = NDArray[np.float32] | Any
_Rows: TypeAlias = NDArray[Any] | Any
_Indices: TypeAlias = NDArray[np.int64] | Any

# What numpy.random.default_rng takes, in every version of NumPy.
_Rng: TypeAlias = (
    np.random.Generator
    | np.random.BitGenerator
    | np.random.SeedSequence
    | SupportsIndex
    | Sequence[int]
    | NDArray[np.integer]
    | None
)
_Size: TypeAlias = SupportsIndex | Sequence[SupportsIndex] | None

# One generic protocol for these three would take mypy minutes.
class _SupportsArray(Protocol):
    def __array__(self) -> np.ndarray[Any, np.dtype[_InFloat64 | _InFloat32 | np.integer]]: ...

class _SupportsIndices(Protocol):
    def __array__(self) -> np.ndarray[Any, np.dtype[np.integer]]: ...

class _SupportsMask(Protocol):
    def __array__(self) -> np.ndarray[Any, np.dtype[np.bool]]: ...

class _SupportsDLPack(Protocol):
    def __dlpack__(self) -> Any: ...
    # As in the array API standard. NumPy's own arrays return a tuple of ints: they don't match, and
    # those of complex numbers are refused.
    def __dlpack_device__(self) -> tuple[Enum, int]: ...

# Dask need not be installed, and an import that fails would be Any, which accepts everything.
# xarray's objects are converted, not lazy; they have all of this, but their chunks may be None.
class _DaskArray(Protocol):
    @property
    def numblocks(self) -> Any: ...
    @property
    def chunks(self) -> tuple[tuple[Any, ...], ...]: ...
    def __dask_graph__(self) -> Any: ...

class _Config(TypedDict):
    version: str
    isa: str
    isas_built: list[str]
    isas_supported: list[str]
    compiler: str
    openmp: bool
    num_threads: int
    num_threads_from: str
    helper_threads: int
    helpers_pay: bool

def get_num_threads() -> int: ...
def set_num_threads(n: SupportsIndex | None) -> None: ...
@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> _Config: ...
@overload
def softmax(
    x: _Lazy, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    out: None = None,
) -> _Lazy: ...
@overload
def softmax(
    x: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    out: _Out,
) -> _Out: ...
@overload
def softmax(
    x: _Double, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    out: None = None,
) -> NDArray[np.float64]: ...
@overload
def softmax(
    x: _Single, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    out: None = None,
) -> NDArray[np.float32]: ...
@overload
def softmax(
    x: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    out: None = None,
) -> NDArray[Any]: ...
@overload
def log_softmax(
    x: _Lazy, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    out: None = None,
) -> _Lazy: ...
@overload
def log_softmax(
    x: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    out: _Out,
) -> _Out: ...
@overload
def log_softmax(
    x: _Double, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    out: None = None,
) -> NDArray[np.float64]: ...
@overload
def log_softmax(
    x: _Single, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    out: None = None,
) -> NDArray[np.float32]: ...
@overload
def log_softmax(
    x: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    out: None = None,
) -> NDArray[Any]: ...
@overload
def logsumexp(
    x: _Lazy, /, axis: _Axes = -1, *, b: _Real | None = None,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[False] = False,
    out: None = None,
) -> _Lazy: ...
@overload
def logsumexp(
    x: _Array, /, axis: _Axes = -1, *, b: _Lazy,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[False] = False,
    out: None = None,
) -> _Lazy: ...
@overload
def logsumexp(
    x: _Array, /, axis: _Axes = -1, *, b: _Real | None = None,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[False] = False,
    out: _Out,
) -> _Out: ...
@overload
def logsumexp(
    x: _Double, /, axis: _Axes = -1, *, b: _Real | None = None,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[False] = False,
    out: None = None,
) -> _Rows64: ...
@overload
def logsumexp(
    x: _Array, /, axis: _Axes = -1, *, b: _Double | np.float64,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[False] = False,
    out: None = None,
) -> _Rows64: ...
@overload
def logsumexp(
    x: _Single, /, axis: _Axes = -1, *, b: float | _Single | None = None,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[False] = False,
    out: None = None,
) -> _Rows32: ...
@overload
def logsumexp(
    x: _Array, /, axis: _Axes = -1, *, b: _Real | None = None,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[False] = False,
    out: None = None,
) -> _Rows: ...
@overload
def logsumexp(
    x: _Lazy, /, axis: _Axes = -1, *, b: _Real | None = None,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[True],
    out: None = None,
) -> tuple[_Lazy, _Lazy]: ...
@overload
def logsumexp(
    x: _Array, /, axis: _Axes = -1, *, b: _Lazy,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[True],
    out: None = None,
) -> tuple[_Lazy, _Lazy]: ...
@overload
def logsumexp(
    x: _Array, /, axis: _Axes = -1, *, b: _Real | None = None,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[True],
    out: _Out,
) -> tuple[_Out, _Rows]: ...
@overload
def logsumexp(
    x: _Double, /, axis: _Axes = -1, *, b: _Real | None = None,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[True],
    out: None = None,
) -> tuple[_Rows64, _Rows64]: ...
@overload
def logsumexp(
    x: _Array, /, axis: _Axes = -1, *, b: _Double | np.float64,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[True],
    out: None = None,
) -> tuple[_Rows64, _Rows64]: ...
@overload
def logsumexp(
    x: _Single, /, axis: _Axes = -1, *, b: float | _Single | None = None,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[True],
    out: None = None,
) -> tuple[_Rows32, _Rows32]: ...
@overload
def logsumexp(
    x: _Array, /, axis: _Axes = -1, *, b: _Real | None = None,
    where: _Mask | None = None, keepdims: bool = False, return_sign: Literal[True],
    out: None = None,
) -> tuple[_Rows, _Rows]: ...
@overload
def softmax_and_logsumexp(
    x: _Lazy, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    keepdims: bool = False, out: None = None,
) -> tuple[_Lazy, _Lazy]: ...
@overload
def softmax_and_logsumexp(
    x: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    keepdims: bool = False, out: _Out,
) -> tuple[_Out, _Rows]: ...
@overload
def softmax_and_logsumexp(
    x: _Double, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    keepdims: bool = False, out: None = None,
) -> tuple[NDArray[np.float64], _Rows64]: ...
@overload
def softmax_and_logsumexp(
    x: _Single, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    keepdims: bool = False, out: None = None,
) -> tuple[NDArray[np.float32], _Rows32]: ...
@overload
def softmax_and_logsumexp(
    x: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
    keepdims: bool = False, out: None = None,
) -> tuple[NDArray[Any], _Rows]: ...
@overload
def entropy(
    logits: _Lazy, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
) -> _Lazy: ...
@overload
def entropy(
    logits: _Double, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
) -> _Rows64: ...
@overload
def entropy(
    logits: _Single, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
) -> _Rows32: ...
@overload
def entropy(
    logits: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, where: _Mask | None = None,
) -> _Rows: ...
@overload
def top_log_probs(
    logits: _Lazy, k: SupportsIndex, /, axis: SupportsIndex = -1, *, temperature: _Real = 1.0,
    where: _Mask | None = None,
) -> tuple[_Lazy, _Lazy]: ...
@overload
def top_log_probs(
    logits: _Double, k: SupportsIndex, /, axis: SupportsIndex = -1, *, temperature: _Real = 1.0,
    where: _Mask | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
@overload
def top_log_probs(
    logits: _Single, k: SupportsIndex, /, axis: SupportsIndex = -1, *, temperature: _Real = 1.0,
    where: _Mask | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...
@overload
def top_log_probs(
    logits: _Array, k: SupportsIndex, /, axis: SupportsIndex = -1, *, temperature: _Real = 1.0,
    where: _Mask | None = None,
) -> tuple[NDArray[np.int64], NDArray[Any]]: ...
@overload
def sample(
    logits: _Lazy, /, axis: SupportsIndex = -1, *, temperature: _Real = 1.0,
    top_k: SupportsIndex | None = None, top_p: float | np.floating = 1.0,
    min_p: float | np.floating = 0.0, where: _Mask | None = None, rng: _Rng = None,
    size: _Size = None,
) -> _Lazy: ...
@overload
def sample(
    logits: _Array, /, axis: SupportsIndex = -1, *, temperature: _Real = 1.0,
    top_k: SupportsIndex | None = None, top_p: float | np.floating = 1.0,
    min_p: float | np.floating = 0.0, where: _Mask | None = None, rng: _Rng = None,
    size: SupportsIndex,
) -> NDArray[np.int64]: ...
@overload
def sample(
    logits: _Array, /, axis: SupportsIndex = -1, *, temperature: _Real = 1.0,
    top_k: SupportsIndex | None = None, top_p: float | np.floating = 1.0,
    min_p: float | np.floating = 0.0, where: _Mask | None = None, rng: _Rng = None,
    size: _Size = None,
) -> _Indices: ...
@overload
def cross_entropy(
    logits: _Lazy, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["mean", "sum", "none"] = "mean", label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None,
) -> _Lazy: ...
@overload
def cross_entropy(
    logits: _Array, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["mean", "sum"] = "mean", label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None,
) -> np.float64: ...
@overload
def cross_entropy(
    logits: _Double, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["none"], label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None,
) -> _Rows64: ...
@overload
def cross_entropy(
    logits: _Single, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["none"], label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None,
) -> _Rows32: ...
@overload
def cross_entropy(
    logits: _Array, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["none"], label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None,
) -> _Rows: ...
@overload
def cross_entropy_value_and_grad(
    logits: _Lazy, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["mean", "sum", "none"] = "mean", label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None, out: None = None,
) -> tuple[_Lazy, _Lazy]: ...
@overload
def cross_entropy_value_and_grad(
    logits: _Array, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["mean", "sum"] = "mean", label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None, out: _Out,
) -> tuple[np.float64, _Out]: ...
@overload
def cross_entropy_value_and_grad(
    logits: _Array, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["none"], label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None, out: _Out,
) -> tuple[_Rows, _Out]: ...
@overload
def cross_entropy_value_and_grad(
    logits: _Double, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["mean", "sum"] = "mean", label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None, out: None = None,
) -> tuple[np.float64, NDArray[np.float64]]: ...
@overload
def cross_entropy_value_and_grad(
    logits: _Single, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["mean", "sum"] = "mean", label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None, out: None = None,
) -> tuple[np.float64, NDArray[np.float32]]: ...
@overload
def cross_entropy_value_and_grad(
    logits: _Array, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["mean", "sum"] = "mean", label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None, out: None = None,
) -> tuple[np.float64, NDArray[Any]]: ...
@overload
def cross_entropy_value_and_grad(
    logits: _Double, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["none"], label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None, out: None = None,
) -> tuple[_Rows64, NDArray[np.float64]]: ...
@overload
def cross_entropy_value_and_grad(
    logits: _Single, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["none"], label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None, out: None = None,
) -> tuple[_Rows32, NDArray[np.float32]]: ...
@overload
def cross_entropy_value_and_grad(
    logits: _Array, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["none"], label_smoothing: float | np.floating = 0.0,
    temperature: _Real = 1.0, where: _Mask | None = None, out: None = None,
) -> tuple[_Rows, NDArray[Any]]: ...
@overload
def cross_entropy_grad_and_hess(
    logits: _Lazy, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    temperature: _Real = 1.0,
) -> tuple[_Lazy, _Lazy]: ...
@overload
def cross_entropy_grad_and_hess(
    logits: _Double, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    temperature: _Real = 1.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
@overload
def cross_entropy_grad_and_hess(
    logits: _Single, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    temperature: _Real = 1.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
@overload
def cross_entropy_grad_and_hess(
    logits: _Array, target: _Real, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    temperature: _Real = 1.0,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
@overload
def kl_divergence(
    logits: _Lazy, target_logits: _Array, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> _Lazy: ...
@overload
def kl_divergence(
    logits: _Array, target_logits: _Lazy, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> _Lazy: ...
@overload
def kl_divergence(
    logits: _Array, target_logits: _Array, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> np.float64: ...
@overload
def kl_divergence(
    logits: _Double, target_logits: _Array, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["none"],
) -> _Rows64: ...
@overload
def kl_divergence(
    logits: _Array, target_logits: _Double, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["none"],
) -> _Rows64: ...
@overload
def kl_divergence(
    logits: _Single, target_logits: _Single, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["none"],
) -> _Rows32: ...
@overload
def kl_divergence(
    logits: _Array, target_logits: _Array, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["none"],
) -> _Rows: ...
@overload
def kl_divergence_value_and_grad(
    logits: _Lazy, target_logits: _Array, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean", out: None = None,
) -> tuple[_Lazy, _Lazy]: ...
@overload
def kl_divergence_value_and_grad(
    logits: _Array, target_logits: _Lazy, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean", out: None = None,
) -> tuple[_Lazy, _Lazy]: ...
@overload
def kl_divergence_value_and_grad(
    logits: _Array, target_logits: _Array, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["mean", "sum"] = "mean", out: _Out,
) -> tuple[np.float64, _Out]: ...
@overload
def kl_divergence_value_and_grad(
    logits: _Array, target_logits: _Array, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["none"], out: _Out,
) -> tuple[_Rows, _Out]: ...
@overload
def kl_divergence_value_and_grad(
    logits: _Double, target_logits: _Array, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["mean", "sum"] = "mean", out: None = None,
) -> tuple[np.float64, NDArray[np.float64]]: ...
@overload
def kl_divergence_value_and_grad(
    logits: _Array, target_logits: _Double, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["mean", "sum"] = "mean", out: None = None,
) -> tuple[np.float64, NDArray[np.float64]]: ...
@overload
def kl_divergence_value_and_grad(
    logits: _Single, target_logits: _Single, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["mean", "sum"] = "mean", out: None = None,
) -> tuple[np.float64, NDArray[np.float32]]: ...
@overload
def kl_divergence_value_and_grad(
    logits: _Array, target_logits: _Array, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["mean", "sum"] = "mean", out: None = None,
) -> tuple[np.float64, NDArray[Any]]: ...
@overload
def kl_divergence_value_and_grad(
    logits: _Double, target_logits: _Array, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["none"], out: None = None,
) -> tuple[_Rows64, NDArray[np.float64]]: ...
@overload
def kl_divergence_value_and_grad(
    logits: _Array, target_logits: _Double, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["none"], out: None = None,
) -> tuple[_Rows64, NDArray[np.float64]]: ...
@overload
def kl_divergence_value_and_grad(
    logits: _Single, target_logits: _Single, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["none"], out: None = None,
) -> tuple[_Rows32, NDArray[np.float32]]: ...
@overload
def kl_divergence_value_and_grad(
    logits: _Array, target_logits: _Array, /, axis: SupportsIndex = -1, *,
    temperature: _Real = 1.0, where: _Mask | None = None,
    reduction: Literal["none"], out: None = None,
) -> tuple[_Rows, NDArray[Any]]: ...
@overload
def nll_loss(
    log_probs: _Lazy, target: _Index, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> _Lazy: ...
@overload
def nll_loss(
    log_probs: _Array, target: _Index, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["mean", "sum"] = "mean",
) -> np.float64: ...
@overload
def nll_loss(
    log_probs: _Double, target: _Index, /, axis: SupportsIndex = -1, *,
    weight: _Array | None = None, sample_weight: _Real | None = None,
    ignore_index: SupportsIndex = -100, reduction: Literal["none"],
) -> _Rows64: ...
@overload
def nll_loss(
    log_probs: _Single, target: _Index, /, axis: SupportsIndex = -1, *,
    weight: _Array | None = None, sample_weight: _Real | None = None,
    ignore_index: SupportsIndex = -100, reduction: Literal["none"],
) -> _Rows32: ...
@overload
def nll_loss(
    log_probs: _Array, target: _Index, /, axis: SupportsIndex = -1, *, weight: _Array | None = None,
    sample_weight: _Real | None = None, ignore_index: SupportsIndex = -100,
    reduction: Literal["none"],
) -> _Rows: ...
@overload
def softmax_vjp(
    grad: _Lazy, y: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, out: None = None,
) -> _Lazy: ...
@overload
def softmax_vjp(
    grad: _Array, y: _Lazy, /, axis: _Axes = -1, *, temperature: _Real = 1.0, out: None = None,
) -> _Lazy: ...
@overload
def softmax_vjp(
    grad: _Array, y: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, out: _Out,
) -> _Out: ...
@overload
def softmax_vjp(
    grad: _Double, y: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, out: None = None,
) -> NDArray[np.float64]: ...
@overload
def softmax_vjp(
    grad: _Array, y: _Double, /, axis: _Axes = -1, *, temperature: _Real = 1.0, out: None = None,
) -> NDArray[np.float64]: ...
@overload
def softmax_vjp(
    grad: _Single, y: _Single, /, axis: _Axes = -1, *, temperature: _Real = 1.0, out: None = None,
) -> NDArray[np.float32]: ...
@overload
def softmax_vjp(
    grad: _Array, y: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, out: None = None,
) -> NDArray[Any]: ...
@overload
def log_softmax_vjp(
    grad: _Lazy, log_y: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, out: None = None,
) -> _Lazy: ...
@overload
def log_softmax_vjp(
    grad: _Array, log_y: _Lazy, /, axis: _Axes = -1, *, temperature: _Real = 1.0, out: None = None,
) -> _Lazy: ...
@overload
def log_softmax_vjp(
    grad: _Array, log_y: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, out: _Out,
) -> _Out: ...
@overload
def log_softmax_vjp(
    grad: _Double, log_y: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0,
    out: None = None,
) -> NDArray[np.float64]: ...
@overload
def log_softmax_vjp(
    grad: _Array, log_y: _Double, /, axis: _Axes = -1, *, temperature: _Real = 1.0,
    out: None = None,
) -> NDArray[np.float64]: ...
@overload
def log_softmax_vjp(
    grad: _Single, log_y: _Single, /, axis: _Axes = -1, *, temperature: _Real = 1.0,
    out: None = None,
) -> NDArray[np.float32]: ...
@overload
def log_softmax_vjp(
    grad: _Array, log_y: _Array, /, axis: _Axes = -1, *, temperature: _Real = 1.0, out: None = None,
) -> NDArray[Any]: ...
@overload
def softmax_jacobian(
    y: _Lazy, /, axis: SupportsIndex = -1, *, temperature: _Real = 1.0,
) -> _Lazy: ...
@overload
def softmax_jacobian(
    y: _Double, /, axis: SupportsIndex = -1, *, temperature: _Real = 1.0,
) -> NDArray[np.float64]: ...
@overload
def softmax_jacobian(
    y: _Single, /, axis: SupportsIndex = -1, *, temperature: _Real = 1.0,
) -> NDArray[np.float32]: ...
@overload
def softmax_jacobian(
    y: _Array, /, axis: SupportsIndex = -1, *, temperature: _Real = 1.0,
) -> NDArray[Any]: ...
@overload
def sigmoid(x: _Lazy, /, *, out: None = None) -> _Lazy: ...
@overload
def sigmoid(x: _Real, /, *, out: _Out) -> _Out: ...
@overload
def sigmoid(x: float | _InFloat64, /, *, out: None = None) -> np.float64: ...
@overload
def sigmoid(x: _InFloat32, /, *, out: None = None) -> np.float32: ...
@overload
def sigmoid(x: _Double, /, *, out: None = None) -> NDArray[np.float64]: ...
@overload
def sigmoid(x: _Single, /, *, out: None = None) -> NDArray[np.float32]: ...
@overload
def sigmoid(x: _Array, /, *, out: None = None) -> _Rows: ...
@overload
def log_sigmoid(x: _Lazy, /, *, out: None = None) -> _Lazy: ...
@overload
def log_sigmoid(x: _Real, /, *, out: _Out) -> _Out: ...
@overload
def log_sigmoid(x: float | _InFloat64, /, *, out: None = None) -> np.float64: ...
@overload
def log_sigmoid(x: _InFloat32, /, *, out: None = None) -> np.float32: ...
@overload
def log_sigmoid(x: _Double, /, *, out: None = None) -> NDArray[np.float64]: ...
@overload
def log_sigmoid(x: _Single, /, *, out: None = None) -> NDArray[np.float32]: ...
@overload
def log_sigmoid(x: _Array, /, *, out: None = None) -> _Rows: ...
@overload
def binary_cross_entropy(
    logits: _Lazy, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["mean", "sum", "none"] = "mean",
) -> _Lazy: ...
@overload
def binary_cross_entropy(
    logits: _Real, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["mean", "sum"] = "mean",
) -> np.float64: ...
@overload
def binary_cross_entropy(
    logits: float | _InFloat64 | _Double, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["none"],
) -> _Rows64: ...
@overload
def binary_cross_entropy(
    logits: _InFloat32 | _Single, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["none"],
) -> _Rows32: ...
@overload
def binary_cross_entropy(
    logits: _Array, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["none"],
) -> _Rows: ...
@overload
def binary_cross_entropy_value_and_grad(
    logits: _Lazy, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["mean", "sum", "none"] = "mean",
    out: None = None,
) -> tuple[_Lazy, _Lazy]: ...
@overload
def binary_cross_entropy_value_and_grad(
    logits: _Real, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["mean", "sum"] = "mean", out: _Out,
) -> tuple[np.float64, _Out]: ...
@overload
def binary_cross_entropy_value_and_grad(
    logits: _Real, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["none"], out: _Out,
) -> tuple[_Rows, _Out]: ...
@overload
def binary_cross_entropy_value_and_grad(
    logits: float | _InFloat64 | _Double, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["mean", "sum"] = "mean", out: None = None,
) -> tuple[np.float64, _Rows64]: ...
@overload
def binary_cross_entropy_value_and_grad(
    logits: _InFloat32 | _Single, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["mean", "sum"] = "mean", out: None = None,
) -> tuple[np.float64, _Rows32]: ...
@overload
def binary_cross_entropy_value_and_grad(
    logits: _Array, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["mean", "sum"] = "mean", out: None = None,
) -> tuple[np.float64, _Rows]: ...
@overload
def binary_cross_entropy_value_and_grad(
    logits: float | _InFloat64 | _Double, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["none"], out: None = None,
) -> tuple[_Rows64, _Rows64]: ...
@overload
def binary_cross_entropy_value_and_grad(
    logits: _InFloat32 | _Single, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["none"], out: None = None,
) -> tuple[_Rows32, _Rows32]: ...
@overload
def binary_cross_entropy_value_and_grad(
    logits: _Array, target: _Real, /, *, weight: _Real | None = None,
    pos_weight: _Real | None = None, reduction: Literal["none"], out: None = None,
) -> tuple[_Rows, _Rows]: ...
