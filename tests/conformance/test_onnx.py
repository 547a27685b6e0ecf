"""ONNX's test cases of its operators (onnx.backend.test.case.node), run with csoftmax's functions.

All cases are run; the graphs into which ONNX expands its operators are no cases of their own.
"""

import importlib

import numpy as np
import pytest

import csoftmax

onnx = pytest.importorskip("onnx")


def collected(operator):
    """The cases that ONNX's module of an operator hands to `expect` while it is imported."""
    cases = []

    def expect(node, inputs, outputs, name):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if "reduction" in attributes:
            attributes["reduction"] = attributes["reduction"].decode()
        cases.append(pytest.param(attributes, inputs, outputs, id=name))

    # The logarithm is of an empty sum, in a case of ReduceLogSumExp.
    with pytest.MonkeyPatch.context() as patch, np.errstate(divide="ignore"):
        patch.setattr("onnx.backend.test.case.node.expect", expect)
        importlib.import_module(f"onnx.backend.test.case.node.{operator}")
    assert cases, f"no cases of {operator}"
    return pytest.mark.parametrize(("attributes", "inputs", "outputs"), cases)


def check(results, outputs):
    """Compare values, dtypes and shapes.

    The expected outputs are NumPy's, computed in the type of the inputs. 8 eps, 1e-6 in float32,
    are the sum of what csoftmax may be off (4 ULP without FMA) and what they may: 2.5 ULP of
    NumPy's exp, the rest for the difference, the sum and the quotient. ONNX itself allows 1e-3.
    """
    for result, expected in zip(results, outputs, strict=True):
        expected = np.asarray(expected)
        rtol = 8 * np.finfo(expected.dtype).eps
        np.testing.assert_allclose(result, expected, rtol=rtol, strict=True)


@collected("softmax")
def test_softmax(attributes, inputs, outputs):
    check([csoftmax.softmax(*inputs, **attributes)], outputs)


@collected("logsoftmax")
def test_log_softmax(attributes, inputs, outputs):
    check([csoftmax.log_softmax(*inputs, **attributes)], outputs)


@collected("reduce_log_sum_exp")
def test_reduce_log_sum_exp(attributes, inputs, outputs):
    # The axes were an attribute up to version 17 of the operators.
    axes = tuple(inputs[1] if len(inputs) > 1 else attributes.get("axes", ()))
    if not axes and not attributes.get("noop_with_empty_axes", 0):
        axes = None
    keepdims = bool(attributes.get("keepdims", 1))
    check([csoftmax.logsumexp(inputs[0], axis=axes, keepdims=keepdims)], outputs)


def in_type_of(logits, loss, attributes):
    """ONNX's means and sums have the type of the logits, csoftmax's are float64."""
    if attributes.get("reduction") != "none":
        assert loss.dtype == np.float64
    return loss.astype(logits.dtype)


@collected("negativeloglikelihoodloss")
def test_negative_log_likelihood_loss(attributes, inputs, outputs):
    log_probs, target, *weights = inputs
    weight = weights[0] if weights else None
    loss = csoftmax.nll_loss(log_probs, target, axis=1, weight=weight, **attributes)
    check([in_type_of(log_probs, loss, attributes)], outputs)


@collected("softmax_cross_entropy_loss")
def test_softmax_cross_entropy_loss(attributes, inputs, outputs):
    """The second output, where a case has it, is the log-probabilities."""
    logits, target, *weights = inputs
    weight = weights[0] if weights else None
    loss = csoftmax.cross_entropy(logits, target, axis=1, weight=weight, **attributes)
    results = [in_type_of(logits, loss, attributes), csoftmax.log_softmax(logits, axis=1)]
    check(results[: len(outputs)], outputs)
