"""What is refused, and what the message says."""

import numpy as np
import pytest

import csoftmax

X = np.arange(12.0, dtype=np.float32).reshape(3, 4)
ROWWISE = [csoftmax.softmax, csoftmax.log_softmax]
ALL = [*ROWWISE, csoftmax.logsumexp]


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [np.longdouble, np.complex64, object, "U3", "M8[s]"])
def test_types_that_are_refused(function, dtype):
    with pytest.raises(TypeError, match=r"float32 or float64.*got"):
        function(np.zeros((2, 3), dtype))


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("axis", "error"),
    [
        (2, np.exceptions.AxisError), (-3, np.exceptions.AxisError),
        ((0, 2), np.exceptions.AxisError), ((0, 0), ValueError), ((0, -2), ValueError),
        (1.0, TypeError), ("0", TypeError), ([0], TypeError),
    ],
)  # fmt: skip
def test_axes_that_are_refused(function, axis, error):
    with pytest.raises(error, match="axis"):
        function(X, axis)


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.__name__)
def test_a_number_has_no_axis(function):
    with pytest.raises(np.exceptions.AxisError):
        function(1.0)
    with pytest.raises(np.exceptions.AxisError):
        csoftmax.cross_entropy(1.0, 0)


@pytest.mark.parametrize("function", ROWWISE, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("temperature", "error", "message"),
    [
        (-1.0, ValueError, "at least 0, got -1.0"), (np.nan, ValueError, "at least 0, got nan"),
        (-np.inf, ValueError, "at least 0"), ([1, 2, -3], ValueError, "at least 0, got -3"),
        ([1.0, 2.0], ValueError, r"shape \(2,\) does not broadcast to \(3,\)"),
        (np.ones((2, 3)), ValueError, r"shape \(2, 3\) does not broadcast to \(3,\)"),
        ("1", TypeError, "real number"), (None, TypeError, "real number"),
        (1j, TypeError, "real number"),
    ],
)  # fmt: skip
def test_temperatures_that_are_refused(function, temperature, error, message):
    with pytest.raises(error, match=message):
        function(X, temperature=temperature)
    with pytest.raises(error, match=message):
        csoftmax.cross_entropy(X, [0, 1, 2], temperature=temperature)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((4, 3), np.float32), ValueError, r"shape \(3, 4\), got \(4, 3\)"),
        (np.empty((1, 3, 4), np.float32), ValueError, r"shape \(3, 4\), got \(1, 3, 4\)"),
        (np.empty((3, 4), int), TypeError, "floating-point, got int64"),
        (np.empty((3, 4), complex), TypeError, "floating-point, got complex128"),
        ([[0.0] * 4] * 3, TypeError, "NumPy array, got list"),
        (np.broadcast_to(np.float32(0), (3, 4)), ValueError, "read-only"),
    ],
)
@pytest.mark.parametrize("axis", [-1, 0, None])
def test_out_that_is_refused(out, error, message, axis):
    for function in ROWWISE:
        with pytest.raises(error, match=message):
            function(X, axis, out=out)
    if axis is not None:
        with pytest.raises(error, match=message):
            csoftmax.cross_entropy_value_and_grad(X, [0] * (3 if axis else 4), axis, out=out)


def test_out_of_logsumexp_that_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\), got \(3, 1\)"):
        csoftmax.logsumexp(X, out=np.empty((3, 1), np.float32))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([0, 4, 1], r"target\[1\] is 4, but classes are 0 to 3 \(C = 4\)"),
        ([0, 1, -1], r"target\[2\] is -1.*ignore_index is -100"),
        (np.array([0, 2**63, 1], np.uint64), r"target\[1\] is 9223372036854775808"),
        (np.array([0, 2**64 - 100, 1], np.uint64), r"target\[1\] is 18446744073709551516"),
        (np.array([2**63 - 1, 0, 1]), r"target\[0\] is 9223372036854775807"),
        (np.array([-(2**63), 0, 1]), r"target\[0\] is -9223372036854775808"),
    ],
)
def test_class_index_out_of_range(target, message):
    out = np.full((3, 4), 7, np.float32)
    with pytest.raises(IndexError, match=message):
        csoftmax.cross_entropy(X, target)
    with pytest.raises(IndexError, match=message):
        csoftmax.cross_entropy_value_and_grad(X, target, out=out)
    assert (out == 7).all()


def test_position_of_a_bad_index_in_more_dimensions():
    target = np.zeros((2, 5), int)
    target[1, 3] = 9
    with pytest.raises(IndexError, match=r"target\[1, 3\] is 9"):
        csoftmax.cross_entropy(np.zeros((2, 4, 5)), target, 1)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([0, 1], ValueError, r"integers of shape \(3,\).*got int64 of shape \(2,\)"),
        ([[0], [1], [2]], ValueError, r"with classes along axis 1; got int64 of shape \(3, 1\)"),
        (1, ValueError, r"got int64 of shape \(\)"),
        ([0.0, 1.0, 2.0], TypeError, r"integers of shape \(3,\).*got float64 of shape \(3,\)"),
        (X[:, :2], ValueError, r"got float32 of shape \(3, 2\)"),
        (X.astype(complex), TypeError, "target must be float32 or float64.*got complex128"),
        ([True, False, True], TypeError, "got bool"),
        (["a", "b", "c"], TypeError, "got <U1"),
    ],
)
def test_targets_that_are_refused(target, error, message):
    with pytest.raises(error, match=message):
        csoftmax.cross_entropy(X, target)


@pytest.mark.parametrize("reduction", ["avg", "", None, 0])
def test_reductions_that_are_refused(reduction):
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', got"):
        csoftmax.cross_entropy(X, [0, 1, 2], reduction=reduction)


class OfAnEnumeration(str):
    """As members of enumerations, equal to a name, but printed as another."""

    def __str__(self):
        return f"Reduction.{self.upper()}"


@pytest.mark.parametrize(
    "reduction", [*map(OfAnEnumeration, ("mean", "sum", "none")), np.str_("mean")], ids=repr
)
def test_reductions_that_are_equal_to_a_name(reduction):
    for call in (
        lambda reduction: csoftmax.cross_entropy(X, [0, 1, 2], reduction=reduction),
        lambda reduction: csoftmax.nll_loss(X, [0, 1, 2], reduction=reduction),
        lambda reduction: csoftmax.binary_cross_entropy(X, X, reduction=reduction),
    ):
        name = "".join(reduction)
        np.testing.assert_array_equal(call(reduction), call(name))


@pytest.mark.parametrize("smoothing", [-1, 2, 1.5, np.nan, 10**400, -(10**400)])
def test_label_smoothing_that_is_refused(smoothing):
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\], got"):
        csoftmax.cross_entropy(X, [0, 1, 2], label_smoothing=smoothing)


def test_ignore_index_and_axis_must_be_integers():
    with pytest.raises(TypeError, match="ignore_index must be an integer, got 1"):
        csoftmax.cross_entropy(X, [0, 1, 2], ignore_index=1.5)
    with pytest.raises(ValueError, match="ignore_index must be an int64, got 9223372036854775808"):
        csoftmax.cross_entropy(X, [0, 1, 2], ignore_index=2**63)
    with pytest.raises(TypeError, match="axis must be an integer, got None"):
        csoftmax.cross_entropy(X, [0, 1, 2], None)


def test_show_config(capsys):
    config = csoftmax.show_config(mode="dicts")
    assert config["version"] == csoftmax.__version__
    assert config["isa"] in config["isas_built"]
    assert config["isa"] in config["isas_supported"]
    assert config["num_threads"] == csoftmax.get_num_threads()
    assert isinstance(config["openmp"], bool)
    assert csoftmax.show_config() is None
    printed = capsys.readouterr().out
    for key in config:
        assert f"{key}: " in printed
    with pytest.raises(ValueError, match="mode must be"):
        csoftmax.show_config(mode="json")
