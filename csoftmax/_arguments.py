"""What several functions ask of their arguments, and what they say where it is not so."""

import math
import operator

import numpy as np
from numpy.exceptions import AxisError

from csoftmax import _dispatch

# By dtype.char, the same for both byte orders. What float32 holds exactly is computed in it.
COMPUTED_IN_FLOAT32 = "f" "e" "?" "bBhH"
COMPUTED_IN_FLOAT64 = "d" "iIlLqQ"
ALLOWED = COMPUTED_IN_FLOAT32 + COMPUTED_IN_FLOAT64


class quiet:
    """Arithmetic of NumPy's without its warnings, and without the flags that it leaves."""

    def __enter__(self):
        self.flags = _dispatch.kernels.float_flags()
        self.errstate = np.errstate(all="ignore")
        self.errstate.__enter__()

    def __exit__(self, *error):
        self.errstate.__exit__(*error)
        _dispatch.kernels.restore_float_flags(self.flags)


def as_array(x, name):
    """`x` as an array, on the same memory if NumPy can read that; TypeError for what is masked."""
    if type(x) is np.ndarray:
        return x
    if isinstance(x, np.ndarray) and hasattr(x, "mask") and np.any(x.mask):
        raise TypeError(
            f"{name} is masked, and its mask would be lost: give its data, with where=~mask if the "
            f"function has `where`, to a loss with ignore_index as the target, else {name}.filled()"
        )
    array = np.asarray(x)
    # Objects whose only way to their memory is DLPack: to NumPy they are no arrays.
    if hasattr(x, "__dlpack__") and array.dtype == object and not hasattr(x, "__array__"):
        return np.from_dlpack(x)
    return array


def as_logits(x, name="x"):
    """`x` as an array of a dtype that the kernels compute with; TypeError for other dtypes."""
    array = x if type(x) is np.ndarray else as_array(x, name)    # a call takes 30 ns
    if array.dtype.char not in ALLOWED:
        refuse_dtype(array, name, "" if array is x else f" from {type(x).__name__}")
    return array


def refuse_dtype(array, name, source=""):
    raise TypeError(
        f"{name} must be float32 or float64, or float16, bool or an integer type, which are "
        f"converted; got {array.dtype}{source}"
    )


def computed_type(x):
    return np.dtype(np.float64 if x.dtype.char in COMPUTED_IN_FLOAT64 else np.float32)


def of_one_type(x, y):
    """Both arrays in the type that the wider of them is computed in."""
    dtype = np.promote_types(computed_type(x), computed_type(y))
    with quiet():
        return x.astype(dtype, copy=False), y.astype(dtype, copy=False)


def new_result(x):
    """An array for a result of the shape of `x`, in the type that it is computed in."""
    return _dispatch.kernels.empty(x.shape, x.dtype.char in COMPUTED_IN_FLOAT64)


def with_one_axis(x, axes):
    """`x` with these axes merged into a last one; a view where strides allow."""
    others = [i for i in range(x.ndim) if i not in axes]
    length = math.prod(x.shape[i] for i in axes)
    return x.transpose(*others, *axes).reshape([*(x.shape[i] for i in others), length])


def delivered(result, out):
    if out is None:
        return result[()]
    with quiet():    # of the cast
        out[...] = result
    return out


def rowwise(gufunc, x, axes, temperature, out, beside=None):
    """The result of a gufunc whose rows are along these axes: logits, temperature, `beside`."""
    beside = () if beside is None else (beside,)
    if len(axes) == 1:
        out = new_result(x) if out is None else out
        return call(gufunc, x, temperature, *beside, axis=axes[0], out=out)
    beside = (with_one_axis(array, axes) for array in beside)
    result = call(gufunc, with_one_axis(x, axes), temperature, *beside)
    others = [i for i in range(x.ndim) if i not in axes]
    result = result.reshape([x.shape[i] for i in (*others, *axes)])
    return delivered(result.transpose(np.argsort([*others, *axes])), out)


def normalized_axis(axis, ndim):
    """`axis` as a number in [0, ndim)."""
    if not -ndim <= axis < ndim:
        raise AxisError(axis, ndim)
    return axis % ndim


def normalized_axes(axis, ndim):
    """`axis`, an int, a tuple of ints or None for all, as a sorted tuple in [0, ndim)."""
    if type(axis) is int:    # nearly always, and what follows takes a microsecond
        return (normalized_axis(axis, ndim),)
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    try:
        axes = tuple(sorted(normalized_axis(operator.index(one), ndim) for one in given))
    except TypeError:
        raise TypeError(f"axis must be an int, a tuple of ints or None, got {axis!r}") from None
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis {axis} names an axis twice")
    return axes


def as_temperature(temperature, logits, axes):
    """`temperature` as float64, a number or an array with one for each row along `axes`."""
    if type(temperature) is float and temperature >= 0:
        return temperature
    given = type(temperature).__name__
    temperature = as_array(temperature, "temperature")
    require_real_temperature(temperature, given)
    with quiet():
        temperature = temperature.astype(np.float64, copy=False)
    if not (temperature >= 0).all():
        wrong = temperature[~(temperature >= 0)].flat[0]
        raise ValueError(f"temperature must be at least 0, got {wrong}")
    if temperature.ndim:
        rows = tuple(n for i, n in enumerate(logits.shape) if i not in axes)
        require_broadcastable(temperature, rows, "temperature")
    return temperature


def has_unknown_length(shape):
    """Of a Dask array, whose blocks are checked when they are there."""
    return any(n != n for n in shape)


def require_shape_of(other, whose, array, name):
    if not may_be_equal(array.shape, other.shape):
        raise ValueError(f"{name} must have the shape of {whose}, {other.shape}; got {array.shape}")


def may_be_equal(shape, other):
    """Of shapes whose lengths may be unknown: NaN, of Dask arrays. Their blocks are checked."""
    return shape == other or (
        len(shape) == len(other)
        and all(n == m or n != n or m != m for n, m in zip(shape, other, strict=True))
    )


def require_real_temperature(temperature, given):
    if temperature.dtype.char not in ALLOWED:
        raise TypeError(
            f"temperature must be a real number or array, got {temperature.dtype} from {given}"
        )


def require_broadcastable(array, shape, name, what="the shape of the logits without the axis"):
    try:
        if has_unknown_length(array.shape) or has_unknown_length(shape):
            last = shape[max(0, len(shape) - array.ndim) :]
            pairs = [(n, m) for n, m in zip(array.shape, last, strict=True) if n != 1]
            fits = may_be_equal([n for n, _ in pairs], [m for _, m in pairs])
        else:
            fits = np.broadcast_shapes(array.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name} of shape {array.shape} does not broadcast to {shape}, {what}"
        )


def as_mask(where, x):
    """`where` as an array of bools of the shape of `x`."""
    where = as_array(where, "where")
    require_mask(where, x)
    return np.broadcast_to(where, x.shape)


def require_mask(where, x):
    if where.dtype != bool:
        raise TypeError(f"where must be an array of bool, got {where.dtype}")
    require_broadcastable(where, x.shape, "where", "the shape of x")


def as_integer(value, name):
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def call(gufunc, logits, *operands, out=None, **keywords):
    """A gufunc's result, without the warnings of casts to its types and to that of `out`.

    Raised is what its loops can't: a MemoryError, or what a signal's handler raised meanwhile.
    """
    array = out[-1] if isinstance(out, tuple) else out
    is_cast = logits.dtype.char not in "fd" or not (array is None or array.dtype == logits.dtype)
    try:
        if not is_cast:
            return gufunc(logits, *operands, out=out, **keywords)
        with quiet():
            return gufunc(logits, *operands, out=out, **keywords)
    finally:
        _dispatch.kernels.raise_if_stopped()


def require_out(out, shape):
    if not isinstance(out, np.ndarray) or hasattr(out, "mask"):    # under which nothing is written
        kind = f"{type(out).__module__}.{type(out).__name__}".removeprefix("builtins.")
        raise TypeError(f"out must be a NumPy array, got {kind}")
    if out.shape != shape:
        raise ValueError(f"out must have the result's shape {shape}, got {out.shape}")
    if out.dtype.kind != "f":
        raise TypeError(f"out must be floating-point, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
