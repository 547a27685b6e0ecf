"""Other libraries' arrays as arguments, the recipes of docs/ecosystem.md, the estimator there."""

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest

import csoftmax
from csoftmax._arguments import as_array

from ..helpers import best_build, each_argument, run_checked
from ..test_array_likes import assert_same_of

jax = pytest.importorskip("jax")
linear_model = pytest.importorskip("sklearn.linear_model")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
sparse = pytest.importorskip("scipy.sparse")
torch = pytest.importorskip("torch")
xr = pytest.importorskip("xarray")
pytest.importorskip("dask")

DOCS = Path(__file__).parents[2] / "docs"


def frame(x):
    """A DataFrame where there are two axes, a Series where there is one."""
    return pd.DataFrame(x) if x.ndim == 2 else pd.Series(x)


def polars_frame(x):
    return pl.DataFrame(x) if x.ndim == 2 else pl.Series(x)


FORMS = {
    "torch": torch.from_numpy,
    "jax": jax.numpy.asarray,
    "pandas": frame,
    "polars": polars_frame,
    "xarray": xr.DataArray,
}


@best_build
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@each_argument
def test_every_argument(call, key, form, build, dtype):
    if form is FORMS["jax"]:
        with jax.enable_x64(True):
            assert_same_of(form, call, key, dtype)
    else:
        assert_same_of(form, call, key, dtype)


BASE = np.arange(24.0).reshape(4, 6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, bool, np.uint8, np.int64])
def test_tensors_are_not_copied(dtype):
    x = BASE.astype(dtype)
    tensor = torch.from_numpy(x)
    for part, same in (
        (tensor, x), (tensor.T, x.T), (tensor[1:, ::2], x[1:, ::2]), (tensor[0], x[0]),
        (tensor[:1].expand(5, 6), np.broadcast_to(x[:1], (5, 6))),
        (torch.nn.Parameter(tensor, requires_grad=False), x),
    ):  # fmt: skip
        seen = as_array(part, "x")
        assert seen.dtype == dtype
        assert (seen.ctypes.data, seen.strides) == (same.ctypes.data, same.strides)
    probabilities = csoftmax.softmax(tensor)
    assert type(probabilities) is np.ndarray
    assert torch.from_numpy(probabilities).data_ptr() == probabilities.ctypes.data


@pytest.mark.parametrize("dtype", [np.float16, np.float32, bool, np.uint8, np.int32])
def test_jax_arrays_are_not_copied(dtype):
    x = jax.numpy.asarray(BASE, dtype)
    seen = as_array(x, "x")
    assert seen.dtype == dtype
    assert seen.ctypes.data == x.unsafe_buffer_pointer()
    assert type(csoftmax.softmax(x)) is np.ndarray


@pytest.mark.parametrize(
    ("labelled", "memory"),
    [
        (frame := pd.DataFrame(BASE), frame.to_numpy()), (frame[1], frame[1].to_numpy()),
        (xr.DataArray(BASE), BASE), (xr.DataArray(BASE).T[::2], BASE.T[::2]),
        (column := pl.Series(BASE[0]), column.to_numpy()),
        (column := pa.array(BASE[0]), column.to_numpy()),
    ],
    ids=["DataFrame", "Series", "DataArray", "DataArray's part", "Polars", "Arrow"],
)  # fmt: skip
def test_labelled_data_are_not_copied(labelled, memory):
    seen = as_array(labelled, "x")
    assert type(seen) is np.ndarray
    assert (seen.ctypes.data, seen.strides) == (memory.ctypes.data, memory.strides)
    assert type(csoftmax.softmax(labelled)) is np.ndarray


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1.0, None], dtype="Float64"), pd.Series([1, None], dtype="Int64"),
        pd.Series([1.0, None], dtype="double[pyarrow]"), pl.Series([1.0, None]),
        pl.Series([1, None]), pa.array([1.0, None]), pa.array([1, None]),
    ],
    ids=[
        "Float64", "Int64", "double[pyarrow]", "Polars", "Polars, integers", "Arrow",
        "Arrow, integers",
    ],
)  # fmt: skip
def test_what_is_missing_is_nan(column):
    np.testing.assert_array_equal(csoftmax.sigmoid(column), [csoftmax.sigmoid(1.0), np.nan])


def test_bfloat16_of_jax():
    x = jax.numpy.arange(3, dtype=jax.numpy.bfloat16)
    right = csoftmax.softmax(np.arange(3, dtype=np.float32))
    np.testing.assert_array_equal(csoftmax.softmax(x), right)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.ones(3, requires_grad=True), TypeError, r"x\.detach\(\)\.numpy\(\)"),
        (torch.ones(3, dtype=torch.bfloat16), TypeError, r"x\.float\(\)\.numpy\(\)"),
        (torch.ones(3, dtype=torch.float8_e4m3fn), TypeError, r"torch\.float8_e4m3fn"),
        (torch.ones(3, dtype=torch.complex64), TypeError, "got complex64 from Tensor"),
        (torch.eye(3).to_sparse(), TypeError, r"Tensor\.to_dense\(\)"),
        (torch.empty(3, device="meta"), TypeError, "meta device"),
        (jax.numpy.ones(3, jax.numpy.float8_e4m3fn), TypeError, "got float8_e4m3fn from ArrayImpl"),
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), TypeError, "got object from DataFrame"),
        (pd.DataFrame(BASE, dtype="Float64"), TypeError, "got object from DataFrame"),
        (pd.Series(["a"], dtype="category"), TypeError, "got object from Series"),
        (pd.date_range("2026-01-01", periods=3), TypeError, "from DatetimeIndex"),
        (pl.Series(["a"]), TypeError, "got <U1 from Series"),
        (sparse.eye_array(3, format="csr"), TypeError, "got object from csr_array"),
    ],
    ids=[
        "torch, gradient", "torch, bfloat16", "torch, float8", "torch, complex", "torch, sparse",
        "torch, meta", "jax, float8", "pandas, text", "pandas, Float64", "pandas, categories",
        "pandas, dates", "polars, text", "scipy, sparse",
    ],
)  # fmt: skip
def test_what_is_refused(x, error, message):
    with pytest.raises(error, match=message):
        csoftmax.softmax(x)


def test_a_traced_array_is_refused():
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(csoftmax.softmax)(jax.numpy.ones(3))


def test_a_tensor_is_no_out():
    tensor = torch.ones(3)
    with pytest.raises(TypeError, match=r"out must be a NumPy array, got torch\.Tensor"):
        csoftmax.softmax(tensor, out=tensor)
    csoftmax.softmax(tensor, out=tensor.numpy())
    np.testing.assert_array_equal(tensor, csoftmax.softmax(np.ones(3, np.float32)))


def test_recipes(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "examples")
    failed, tried = doctest.testfile(str(DOCS / "ecosystem.md"), module_relative=False)
    assert failed == 0
    assert tried > 40


def test_the_estimator_passes_every_check():
    """One asks for SciPy's support of the array API, which is switched on before the import."""
    checked = run_checked(
        f"""
import sys
sys.path.insert(0, {str(DOCS / "examples")!r})
from collections import Counter
from sklearn.utils.estimator_checks import check_estimator
from softmax_classifier import SoftmaxClassifier
results = check_estimator(SoftmaxClassifier(), on_skip=None)
print(*Counter(result["status"] for result in results))
""",
        SCIPY_ARRAY_API="1",
    )
    assert checked == "passed\n"


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_estimator_s_optimum_is_logistic_regression_s(weighted, fit_intercept, monkeypatch):
    """Intercepts have no penalty, so that a number may be added to all."""
    monkeypatch.syspath_prepend(DOCS / "examples")
    SoftmaxClassifier = importlib.import_module("softmax_classifier").SoftmaxClassifier
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 20))
    y = (X @ rng.normal(size=(20, 5)) + rng.gumbel(size=(2000, 5)) + np.arange(5)).argmax(axis=1)
    weight = rng.uniform(0, 2, size=2000) if weighted else None
    keywords = {"C": 0.1, "tol": 1e-9, "max_iter": 1000, "fit_intercept": fit_intercept}
    ours = SoftmaxClassifier(**keywords).fit(X, y, weight)
    theirs = linear_model.LogisticRegression(**keywords).fit(X, y, weight)

    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=0, atol=1e-6)
    intercept = ours.intercept_ - np.mean(ours.intercept_)
    np.testing.assert_allclose(intercept, theirs.intercept_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        np.exp(ours.predict_log_proba(X)), ours.predict_proba(X), rtol=1e-14
    )
    narrow = SoftmaxClassifier(**keywords | {"tol": 1e-5}).fit(X.astype(np.float32), y, weight)
    assert narrow.coef_.dtype == narrow.predict_proba(X[:1].astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(narrow.coef_, theirs.coef_, rtol=0, atol=1e-3)
