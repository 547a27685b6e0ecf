"""What several functions ask of their arguments, and what they say where it is not so."""

import math
import numbers
import operator
from itertools import chain, zip_longest

import numpy as np
from numpy.exceptions import AxisError

from csoftmax import _dispatch

# By dtype.num: types of other libraries have numbers of their own, and may have the characters of
# NumPy's. What float32 holds exactly is computed in it.
COMPUTED_IN_FLOAT32 = {np.dtype(char).num for char in "fe?bBhH"}
COMPUTED_IN_FLOAT64 = {np.dtype(char).num for char in "diIlLqQ"}
FLOATING = {np.dtype(char).num for char in "efdg"}
INTEGERS = {np.dtype(char).num for char in "bBhHiIlLqQ"}
PYTHON_NUMBERS = {float, int, bool}
NUMBERS_OF_PANDAS = "biuf"    # kinds of its own dtypes, for numbers that may be missing


def is_bfloat16(dtype):
    """ml_dtypes', which is not imported here: a type of its own, told by its name."""
    return dtype.num >= 256 and dtype.name == "bfloat16"


def quiet():
    """A context for arithmetic of NumPy's: no warnings are given, and no flags are left."""
    return _dispatch.kernels.quiet()


def as_array(x, name):
    """`x` as an array, on the same memory if NumPy can read that; TypeError for what is masked."""
    if type(x) is np.ndarray:
        return x
    if is_anything_masked(x):
        array_of = f"make {name} = np.ma.stack({name}), " if is_sequence(x) else ""
        raise TypeError(
            f"{name} is masked, and its mask would be lost: {array_of}give its data, with "
            "where=~mask if the function has `where`, to a loss with ignore_index as the target, "
            f"else {name}.filled()"
        )
    try:
        array = np.asarray(x)
    except (RuntimeError, TypeError) as error:
        refuse_tensor(x, name, error)
        raise
    # Objects whose only way to their memory is DLPack: to NumPy they are no arrays.
    if hasattr(x, "__dlpack__") and array.dtype == object and not hasattr(x, "__array__"):
        return np.from_dlpack(x)
    return array


def is_anything_masked(x, levels=64):
    """Also of what stands in nested sequences: NumPy makes an array of them without their masks."""
    if isinstance(x, np.ndarray):    # one with fields is refused in any case
        return hasattr(x, "mask") and not x.dtype.names and np.any(x.mask)
    if is_sequence(x):
        kinds = set(map(type, x))
        if kinds <= PYTHON_NUMBERS or levels == 0:    # nearly always
            return False
        if kinds <= {list, tuple}:    # a table: one list takes less time than many
            return is_anything_masked(list(chain.from_iterable(x)), levels - 1)
        return not all(issubclass(kind, np.generic) for kind in kinds) and any(
            is_anything_masked(one, levels - 1) for one in x
        )
    # A Dask array among others in a list, which NumPy computes and reads.
    return isinstance(getattr(x, "_meta", None), np.ndarray) and hasattr(x._meta, "mask")


def is_sequence(x):
    """Whether NumPy makes an array of what is in it: not of text, and not of memory it can read."""
    if isinstance(x, list | tuple):
        return True
    if not hasattr(x, "__getitem__") or not hasattr(x, "__len__") or isinstance(x, str | dict):
        return False
    if any(hasattr(x, f"__array{which}__") for which in ("", "_interface", "_struct")):
        return False
    try:
        memoryview(x)
    except TypeError:
        return True
    return False


def refuse_tensor(x, name, error):
    """One of PyTorch's, whose own message names no argument, and for a type no way out."""
    while isinstance(x, list | tuple) and x:
        x = x[0]
    if not hasattr(x, "detach"):
        return
    what, way = [], ""
    if x.requires_grad:
        what, way = ["that requires gradients"], ".detach()"
    is_narrow = x.dtype.is_floating_point and x.dtype.itemsize < 4
    if is_narrow and str(x.dtype) != "torch.float16":
        what.append(f"of {x.dtype}, a type that NumPy doesn't have")
        way += ".float()"
    if what:
        raise TypeError(
            f"{name} must be what NumPy can read, got a tensor {' and '.join(what)}: "
            f"{name}{way}.numpy()"
        ) from error


def as_logits(x, name="x"):
    """`x` as an array of a dtype that the kernels compute with; TypeError for other dtypes."""
    array = as_array(x, name)
    if not is_allowed(array.dtype):
        refuse_dtype(array, name, x)
    return array


def is_allowed(dtype):
    num = dtype.num
    return num in COMPUTED_IN_FLOAT32 or num in COMPUTED_IN_FLOAT64 or is_bfloat16(dtype)


def refuse_dtype(array, name, given):
    source = "" if array is given else f" from {type(given).__name__}"
    raise TypeError(
        f"{name} must be float32 or float64, or float16, bfloat16, bool or an integer type, which "
        f"are converted; got {array.dtype}{source}{in_float64(given, name)}"
    )


def in_float64(given, name):
    """How to make numbers of what is of no type that is taken, if there is a way."""
    if hasattr(given, "dask"):    # whose numbers are not known yet
        return ""
    if hasattr(given, "columns") and hasattr(getattr(given, "dtypes", None), "items"):    # pandas'
        return in_float64_of_columns(given, name)
    dtype = getattr(given, "dtype", None)
    if not isinstance(dtype, np.dtype) and getattr(dtype, "kind", "O") in NUMBERS_OF_PANDAS:
        return f': {name}.to_numpy("float64", na_value=np.nan)'
    numbers = float64_of(np.asarray(given))
    if numbers is None or np.isnan(numbers).all():    # as of None alone
        return ""
    return f": np.asarray({name}, float) makes float64 of it"


def float64_of(array):
    """Its numbers in float64, or None if that is not what they are."""
    if array.dtype.kind in "cmM" or array.dtype.names or "complex" in array.dtype.name:
        return None
    if array.dtype.kind == "O" and is_anything_masked(array.ravel().tolist()):
        return None
    try:
        with quiet():
            return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        return None


def in_float64_of_columns(frame, name):
    wrong = {
        column: dtype for column, dtype in frame.dtypes.items()
        if not (isinstance(dtype, np.dtype) and is_allowed(dtype))
    }  # fmt: skip
    for column, dtype in wrong.items():
        if dtype.kind not in NUMBERS_OF_PANDAS:
            return (
                f", whose column {column!r} is {dtype}: leave it out, {name}.drop(columns="
                f"[{column!r}]), or make numbers of it"
            )
    for column, dtype in wrong.items():
        return (
            f', whose column {column!r} is {dtype}: {name}.to_numpy("float64", na_value=np.nan)'
        )
    return ""


def computed_type(x):
    return np.dtype(np.float64 if x.dtype.num in COMPUTED_IN_FLOAT64 else np.float32)


def with_one_axis(x, axes):
    """`x` with these axes merged into a last one; a view where strides allow."""
    others = [i for i in range(x.ndim) if i not in axes]
    length = math.prod(x.shape[i] for i in axes)
    return x.transpose(*others, *axes).reshape([*(x.shape[i] for i in others), length])


def with_all_axes(x, axes, shape):
    """The reverse: an array of this shape."""
    order = [*(i for i in range(len(shape)) if i not in axes), *axes]
    return x.reshape([shape[i] for i in order]).transpose(np.argsort(order))


def along_one_axis(compute, axes, out, *arrays):
    """For axes that steps of one stride don't lead through: `compute` of copies that have one.

    Takes arrays of one shape and the axis, and gives a result of that shape, or of the rows'.
    """
    x = arrays[0]
    result = computed(compute(*(with_one_axis(array, axes) for array in arrays), -1))
    if np.ndim(result) > x.ndim - len(axes):
        result = with_all_axes(result, axes, x.shape)
    return delivered(result, out)


def computed(result):
    """What a kernel gave for arguments that have been checked."""
    if result is None:
        raise RuntimeError("an array has changed while csoftmax read it")
    return result


def delivered(result, out):
    if out is None:
        return result
    _dispatch.kernels.assign(out, result)
    return out


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
        axes = tuple(sorted(normalized_axis(as_integer(one, "axis"), ndim) for one in given))
    except TypeError:
        raise TypeError(f"axis must be an int, a tuple of ints or None, got {axis!r}") from None
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis {axis} names an axis twice")
    return axes


def as_temperature(temperature, logits, axes):
    """`temperature` as a float, or as a float64 array with one for each row along `axes`."""
    if isinstance(temperature, numbers.Real):
        return as_one_temperature(temperature)
    array = as_array(temperature, "temperature")
    require_real_temperature(array, temperature)
    temperature = array
    with quiet():
        temperature = temperature.astype(np.float64, copy=False)
    if not (temperature >= 0).all():
        wrong = temperature[~(temperature >= 0)].flat[0]
        raise ValueError(f"temperature must be at least 0, got {wrong}")
    if temperature.ndim == 0:
        return float(temperature)
    require_one_for_each_row(temperature, logits, axes, "temperature")
    return temperature


def as_one_temperature(temperature):
    try:
        number = float(temperature)
    except OverflowError:
        if temperature > 0:
            raise ValueError(
                "temperature must be a number that a float can hold, up to 1.8e308, or math.inf; "
                f"got a larger {type(temperature).__name__}"
            ) from None
        number = -math.inf
    if not number >= 0:
        raise ValueError(f"temperature must be at least 0, got {number}")
    return number


def require_one_for_each_row(array, logits, axes, name):
    """That it broadcasts to the rows. Often an axis of length 1 is left where the classes were."""
    rows = tuple(n for i, n in enumerate(logits.shape) if i not in axes)
    kept = tuple(i for i in axes if array.ndim == logits.ndim and array.shape[i] == 1)
    without_kept = tuple(n for i, n in enumerate(array.shape) if i not in kept)
    hint = ""
    if array.shape[-1:] == (1,) and does_broadcast(array.shape[:-1], rows):
        hint = f"; drop the last axis, which has length 1: {name}[..., 0]"
    elif kept and does_broadcast(without_kept, rows):
        hint = f"; drop the axis of the classes, which has length 1: {name}.squeeze({kept})"
    elif name == "temperature" and does_broadcast(array.shape, logits.shape):
        hint = "; for one of each number divide the logits by it"
    require_broadcastable(array, rows, name, hint=hint)


def require_order_of(x, name, **others):
    """That labels of pandas, which NumPy drops, are in one order: numbers go by their places."""
    axes = labels_of(x)
    for its_name, other in others.items() if axes else ():
        its_axes = labels_of(other)
        for place, labels in enumerate(its_axes):
            # A Series may be along either axis of a DataFrame.
            whose = axes[place : place + 1] if len(its_axes) == len(axes) else axes
            if any(labels.equals(one) for one in whose):
                continue
            for one in whose:
                if len(one) == len(labels) and one.isin(labels).all() and labels.isin(one).all():
                    which = "index" if one is axes[0] else "columns"
                    raise ValueError(
                        f"{its_name} has the labels of {name} in another order, and numbers go by "
                        f"their places: give {its_name}.reindex({name}.{which}), or if the places "
                        f"are right {its_name}.to_numpy()"
                    )


def labels_of(x):
    """The labels of a pandas object's axes. A Dask DataFrame's are not known yet."""
    axes = getattr(x, "axes", None)
    is_known = isinstance(axes, list) and all(hasattr(one, "equals") for one in axes)
    return axes if is_known else []


def require_shape_of(other, whose, array, name):
    if not may_be_equal(array.shape, other.shape):
        raise ValueError(f"{name} must have the shape of {whose}, {other.shape}; got {array.shape}")


def may_be_equal(shape, other):
    """Of shapes whose lengths may be unknown: NaN, of Dask arrays. Their blocks are checked."""
    return shape == other or (
        len(shape) == len(other)
        and all(n == m or n != n or m != m for n, m in zip(shape, other, strict=True))
    )


def require_real_temperature(array, given):
    if not is_allowed(array.dtype):
        raise TypeError(
            f"temperature must be a real number or array, got {array.dtype} from "
            f"{type(given).__name__}{in_float64(given, 'temperature')}"
        )


def does_broadcast(shape, other):
    """NumPy's own check takes 32 dimensions, where its arrays have up to 64."""
    last = other[max(0, len(other) - len(shape)) :]
    if len(shape) > len(other):
        return False
    pairs = [(n, m) for n, m in zip(shape, last, strict=True) if n != 1]
    return may_be_equal([n for n, _ in pairs], [m for _, m in pairs])


def shape_of_both(x, b):
    """The shape that `x` and its weights have together."""
    lengths = []
    for n, m in zip_longest(x.shape[::-1], b.shape[::-1], fillvalue=1):
        if n != m and 1 not in (n, m) and n == n and m == m:    # NaN is unknown, of Dask arrays
            raise ValueError(
                f"b of shape {b.shape} does not broadcast against {x.shape}, the shape of x"
            )
        lengths.append(m if n == 1 else n)
    return tuple(lengths[::-1])


def require_broadcastable(
    array, shape, name, what="the shape of the logits without the axis", hint=""
):
    if not does_broadcast(array.shape, shape):
        raise ValueError(
            f"{name} of shape {array.shape} does not broadcast to {shape}, {what}{hint}"
        )


def as_mask(where, x):
    """`where` as an array of bools that broadcasts to `x`, or None."""
    if where is None:
        return None
    mask = as_array(where, "where")
    require_mask(mask, x, where)
    return mask


def as_out(out):
    """An array of NumPy's own class on the memory of `out`, or None."""
    return None if out is None else np.asarray(out)


def require_mask(mask, x, given):
    if mask.dtype != bool:
        way = ": where != 0 is one" if is_allowed(mask.dtype) else ""
        if getattr(getattr(given, "dtype", None), "kind", "") == "b":    # of pandas, with NA
            way = ": where.to_numpy(bool, na_value=False)"
        raise TypeError(f"where must be an array of bool, got {mask.dtype}{way}")
    require_broadcastable(mask, x.shape, "where", "the shape of x")


def as_integer(value, name):
    if is_anything_masked(value):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def as_share(value, name):
    """A number, or an array of one without axes, in [0, 1]."""
    if not isinstance(value, numbers.Real):
        array = as_array(value, name)
        if array.ndim or not is_allowed(array.dtype):
            raise TypeError(f"{name} must be a number, got {value!r}")
        value = float(array)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")
    return float(value)


def require_out(out, shape):
    if not isinstance(out, np.ndarray) or hasattr(out, "mask"):    # under which nothing is written
        kind = f"{type(out).__module__}.{type(out).__name__}".removeprefix("builtins.")
        way = ": out.numpy() is one on its memory" if hasattr(out, "detach") else ""
        raise TypeError(f"out must be a NumPy array, got {kind}{way}")
    if out.shape != shape:
        raise ValueError(f"out must have the result's shape {shape}, got {out.shape}")
    if out.dtype.num not in FLOATING and not is_bfloat16(out.dtype):
        raise TypeError(f"out must be floating-point, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
