"""What is said of pandas' and PyTorch's objects that are not taken as they are.

What a message says to write is written, and taken.
"""

import re

import numpy as np
import pytest

import csoftmax

pd = pytest.importorskip("pandas")
torch = pytest.importorskip("torch")

LOGITS = np.random.default_rng(0).normal(size=(2, 3))
FRAME = pd.DataFrame(LOGITS, ["x", "y"], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (pd.Series(["a", "b"], dtype="category"), r": (target\.cat\.codes) are indices"),
        (pd.Categorical(["a", "b"]), r": (target\.codes) are indices"),
        (pd.Series([0, None], dtype="Int64"), r": (target\.to_numpy\(int, na_value=-100\)), with"),
        (pd.Series([True, None], dtype="boolean"), r": (target\.to_numpy\(int, na_value=-100\))"),
        (pd.Series(["a", "b"]), r": (np\.unique\(target, return_inverse=True\)\[1\])"),
        (pd.Series([0.0, 1.0]), r": (np\.asarray\(target\)\.astype\(int\))"),
        (pd.DataFrame({"label": [0, 1]}), r": (np\.squeeze\(target, 1\)) drops"),
        (torch.zeros(2, dtype=torch.bfloat16), r"of torch\.bfloat16, .*: (target\.float\(\))"),
    ],
)  # fmt: skip
def test_labels(target, message):
    with pytest.raises((TypeError, ValueError), match="^target must be .*" + message) as caught:
        csoftmax.cross_entropy(LOGITS, target)
    if not isinstance(target, torch.Tensor):
        way = re.search(message, str(caught.value))[1]
        csoftmax.cross_entropy(LOGITS, eval(way, {"np": np, "target": target}))


NULLABLE = pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [1.0, 2.0]})
MIXED = NULLABLE.assign(c=["x", "y"])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (NULLABLE, r'column .a. is Int64: (x\.to_numpy\("float64", na_value=np\.nan\))'),
        (MIXED[["b", "c"]], r"column .c. is \w+: leave it out, (x\.drop\(columns=.*\)),"),
        (pd.array([True, None], "boolean"), r': (x\.to_numpy\("float64", na_value=np\.nan\))'),
        (torch.ones(3, requires_grad=True), r"requires gradients: (x\.detach\(\)\.numpy\(\))"),
        (torch.ones(3, dtype=torch.half, requires_grad=True), r"s: (x\.detach\(\)\.numpy\(\))"),
        (torch.ones(3, dtype=torch.bfloat16), r"of torch\.bfloat16, .*: (x\.float\(\))\.numpy"),
        (torch.ones(3, dtype=torch.float8_e5m2), r"float8_e5m2, .*: (x\.float\(\))\."),
        (torch.ones(3, dtype=torch.bfloat16, requires_grad=True),
         r"gradients and of torch\.bfloat16, .*: (x\.detach\(\)\.float\(\)\.numpy\(\))"),
    ],
    ids=["nullable", "text", "bools", "gradient", "float16 with gradient", "bfloat16", "float8",
         "bfloat16 with gradient"],
)  # fmt: skip
def test_numbers(x, message):
    with pytest.raises(TypeError, match=message) as caught:
        csoftmax.softmax(x)
    way = re.search(message, str(caught.value))[1]
    assert csoftmax.softmax(eval(way, {"np": np, "x": x})).shape[0] == len(x)
    if isinstance(x, torch.Tensor):
        with pytest.raises(TypeError, match=message):
            csoftmax.softmax([x, x])


def test_columns_that_are_text_before_those_that_miss_numbers():
    with pytest.raises(TypeError, match=r"column 'c' is .*drop\(columns=\['c'\]\)"):
        csoftmax.softmax(MIXED)


def test_masks_that_miss_values():
    where = pd.array([True, None, True], "boolean")
    with pytest.raises(TypeError, match=r"where\.to_numpy\(bool, na_value=False\)$"):
        csoftmax.softmax(LOGITS, where=where)
    right = csoftmax.softmax(LOGITS, where=[True, False, True])
    given = where.to_numpy(bool, na_value=False)
    np.testing.assert_array_equal(csoftmax.softmax(LOGITS, where=given), right)


LABELS = pd.Series([0, 1], FRAME.index)
REORDERED = {
    "labels": lambda x: csoftmax.cross_entropy(x, LABELS[::-1]),
    "labels, gradient": lambda x: csoftmax.cross_entropy_value_and_grad(x, LABELS[::-1]),
    "labels, Hessian": lambda x: csoftmax.cross_entropy_grad_and_hess(x, LABELS[::-1]),
    "labels of log-probabilities": lambda x: csoftmax.nll_loss(x, LABELS[::-1]),
    "rows of probabilities": lambda x: csoftmax.cross_entropy(x, FRAME[::-1]),
    "columns of probabilities": lambda x: csoftmax.cross_entropy(x, FRAME[["b", "a", "c"]]),
    "weights of classes":
        lambda x: csoftmax.cross_entropy(x, [0, 1], weight=pd.Series([1, 2, 3], ["c", "b", "a"])),
    "weights of rows": lambda x: csoftmax.cross_entropy(x, [0, 1], sample_weight=LABELS[::-1]),
    "temperatures": lambda x: csoftmax.softmax(x, temperature=1 + LABELS[::-1]),
    "temperatures of a loss":
        lambda x: csoftmax.cross_entropy(x, [0, 1], temperature=1 + LABELS[::-1]),
    "temperatures of draws": lambda x: csoftmax.sample(x, temperature=1 + LABELS[::-1]),
    "mask": lambda x: csoftmax.log_softmax(x, where=FRAME[::-1] > 0),
    "mask of the most probable": lambda x: csoftmax.top_log_probs(x, 1, where=FRAME[::-1] < 9),
    "mask of a sum": lambda x: csoftmax.logsumexp(x, where=FRAME[::-1] > 0),
    "weights of a sum": lambda x: csoftmax.logsumexp(x, b=FRAME[::-1]),
    "gradient": lambda x: csoftmax.softmax_vjp(FRAME[::-1], x),
    "Jacobian": lambda x: csoftmax.softmax_jacobian(x, temperature=1 + LABELS[::-1]),
    "target's logits": lambda x: csoftmax.kl_divergence(x, FRAME[::-1]),
    "binary labels": lambda x: csoftmax.binary_cross_entropy(x, FRAME[::-1] > 0),
    "binary labels' weights":
        lambda x: csoftmax.binary_cross_entropy(x, FRAME > 0, pos_weight=FRAME[::-1]),
}  # fmt: skip


@pytest.mark.parametrize("call", REORDERED.values(), ids=REORDERED.keys())
def test_labels_in_another_order(call):
    with pytest.raises(ValueError, match=r"the labels of \w+ in another order, .*\.reindex\("):
        call(FRAME)
    call(FRAME.to_numpy())
    call(FRAME.set_axis([7, 8]).set_axis(["d", "e", "f"], axis=1))    # others: places count


def test_one_order_of_labels():
    right = csoftmax.cross_entropy(LOGITS, [0, 1], weight=[1, 2, 3], sample_weight=[1, 2])
    given = {"weight": pd.Series([3, 2, 1], ["c", "b", "a"]), "sample_weight": LABELS[::-1] + 1}
    assert right == csoftmax.cross_entropy(
        FRAME, LABELS[::-1].reindex(FRAME.index),
        weight=given["weight"].reindex(FRAME.columns),
        sample_weight=given["sample_weight"].reindex(FRAME.index),
    )  # fmt: skip
    assert right == csoftmax.cross_entropy(
        FRAME.T, LABELS, 0, weight=given["weight"].sort_index(), sample_weight=LABELS + 1
    )
