"""What isn't a NumPy array but stands for one: its memory is read where it lies, a result is plain.

Lists, subclasses and `__array__` are among the forms of test_layouts, other libraries' arrays in
conformance/test_ecosystem.
"""

import array
import collections

import numpy as np
import pytest

import csoftmax
from csoftmax._arguments import as_array

from .functions import WITH_OUT, operands_of
from .helpers import assert_same_results, best_build, each_argument


class WithInterface:
    """Knows nothing but `__array_interface__`."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = array.__array_interface__


class WithDLPack:
    """Knows nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **keywords):
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class WithOldDLPack(WithDLPack):
    """As before version 1.0 of the protocol."""

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()


FORMS = {
    "__array_interface__": WithInterface,
    "DLPack": WithDLPack,
    "DLPack before 1.0": WithOldDLPack,
    "buffer": memoryview,
    "nothing masked": lambda x: np.ma.array(x, mask=np.zeros(x.shape, bool)),
    "no mask": np.ma.array,
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def assert_same_of(form, call, key, dtype, shape=(6, 40)):
    operands = operands_of(call.operands, shape, dtype)
    expected = call(operands)
    assert_same_results(call(operands | {key: form(operands[key])}), expected, dtype)


@best_build
@forms
@each_argument
def test_every_argument(call, key, form, build, dtype):
    assert_same_of(form, call, key, dtype)


@forms
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, bool, np.int8, np.int64])
def test_nothing_is_copied(form, dtype):
    x = np.ones((3, 4), dtype)
    for part in (x, x.T, x[:, ::2], x[::-1]):
        seen = as_array(form(part), "x")
        assert type(seen) is np.ndarray
        assert np.shares_memory(seen, part)
        assert (seen.strides, seen.dtype) == (part.strides, part.dtype)


def test_the_standard_library_s_arrays():
    x = array.array("f", [2.0, 1.0, 0.1])
    assert np.shares_memory(as_array(x, "x"), np.frombuffer(x, np.float32))
    assert csoftmax.softmax(x).dtype == np.float32
    np.testing.assert_array_equal(csoftmax.softmax(x), csoftmax.softmax(np.array(x)))


@best_build
@each_argument
def test_masks_are_not_dropped(call, key, build):
    operands = operands_of(call.operands, (6, 40), np.dtype(np.float64))
    mask = np.zeros(operands[key].shape, bool)
    mask.flat[-1] = True
    operands[key] = np.ma.array(operands[key], mask=mask)
    with pytest.raises(TypeError, match=r"is masked, .* its data, with where=~mask if"):
        call(operands)


class Sequence:
    """Which NumPy goes through, and which no abstract class knows."""

    def __init__(self, items):
        self.items = list(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, place):
        return self.items[place]


# Of which NumPy makes an array item by item; items are masked arrays, or np.ma.masked.
SEQUENCES = {
    "list": list, "tuple": tuple, "deque": collections.deque, "other sequence": Sequence,
    "mixed": lambda x: [np.asarray(x[0]), *list(x)[1:]],
}  # fmt: skip
each_sequence = pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES.keys())


@best_build
@each_sequence
@each_argument
def test_sequences_of_arrays(call, key, sequence, build, dtype):
    assert_same_of(lambda x: sequence(np.ma.array(x)), call, key, dtype, shape=(3, 5))


@best_build
@each_sequence
@each_argument
def test_masks_in_sequences_are_not_dropped(call, key, sequence, build):
    operands = operands_of(call.operands, (6, 40), np.dtype(np.float64))
    mask = np.zeros(operands[key].shape, bool)
    mask.flat[-1] = True
    operands[key] = sequence(np.ma.array(operands[key], mask=mask))
    with pytest.raises(TypeError, match=r"is masked, .* make (\w+) = np\.ma\.stack\(\1\)"):
        call(operands)


def test_masks_deep_in_sequences():
    masked = np.ma.array([1.0, 2.0], mask=[0, 1])
    for x in ([[masked]], ([np.zeros(2)], [masked]), [[[0.0, 1.0]], [[0.0, np.ma.masked]]]):
        with pytest.raises(TypeError, match="x is masked"):
            csoftmax.softmax(x)
    for x in (np.ma.zeros(3, "f,f"), [np.ma.zeros(3, "f,f")]):
        with pytest.raises(TypeError, match=r"x must be float32 or float64, .*got \[\('f0'"):
            csoftmax.softmax(x)
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="maximum number of dimension"):
        csoftmax.softmax(endless)


def test_masked_numbers():
    masked = np.ma.array(1, mask=True)
    x = np.zeros((2, 3))
    for name, call in {
        "axis": lambda: csoftmax.softmax(x, masked), "k": lambda: csoftmax.top_log_probs(x, masked),
        "size": lambda: csoftmax.sample(x, size=masked),
        "top_k": lambda: csoftmax.sample(x, top_k=masked),
        "top_p": lambda: csoftmax.sample(x, top_p=masked),
        "min_p": lambda: csoftmax.sample(x, min_p=masked),
        "ignore_index": lambda: csoftmax.cross_entropy(x, [0, 1], ignore_index=masked),
        "label_smoothing": lambda: csoftmax.cross_entropy(x, [0, 1], label_smoothing=masked),
        "temperature": lambda: csoftmax.softmax(x, temperature=masked),
    }.items():  # fmt: skip
        with pytest.raises(TypeError, match=f"^{name} (must be|is masked)"):
            call()


@pytest.mark.parametrize("name", WITH_OUT)
def test_no_result_under_a_mask(name):
    call = WITH_OUT[name]
    operands = operands_of(call.operands, (6, 40), np.dtype(np.float64))
    out = np.ma.zeros(call.shape_of_out((6, 40), -1))
    with pytest.raises(TypeError, match=r"out must be a NumPy array, got numpy\.ma.*MaskedArray"):
        call(operands, out=out)
    assert not out.any()


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (None, "object from NoneType"), ([1.0, "a"], r"<U\d+ from list"), ({1.0: 2.0}, "from dict"),
        ({1.0, 2.0}, "object from set"), ((i for i in [1.0]), "object from generator"),
        (np.zeros(3, "f,f"), r"\[\('f0'"), (np.rec.array(np.zeros(3, "f,f")), "recarray"),
        (np.zeros(3, "m8[s]"), r"timedelta64\[s\]$"), ([2**70], "object from list"),
        (WithDLPack(np.zeros(3, complex)), "complex128 from WithDLPack"),
    ],
)  # fmt: skip
def test_what_is_refused(x, got):
    with pytest.raises(TypeError, match=f"x must be float32 or float64.*got .*{got}"):
        csoftmax.softmax(x)
