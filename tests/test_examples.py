"""Worked examples that users know from books and web pages, and the docstrings' own."""

import doctest
import importlib

import numpy as np
import pytest

import csoftmax

IMPLEMENTATIONS = [
    csoftmax.softmax, csoftmax.reference.numpy_softmax, csoftmax.reference.math_softmax,
]  # fmt: skip

SOFTMAX = [
    ([2, 1, 0.1], [0.659, 0.242, 0.099], 3),
    ([1000, 1001, 999], [0.24472847, 0.66524096, 0.09003057], 8),
    ([10, 20], [4.5398e-05, 0.9999546], 7),
    ([0.2, 1.5, -2], [0.2092, 0.7676, 0.0232], 4),
]


@pytest.mark.parametrize("softmax", IMPLEMENTATIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("x", "expected", "digits"), SOFTMAX)
def test_softmax(softmax, x, expected, digits):
    np.testing.assert_array_equal(np.round(softmax(x), digits), np.round(expected, digits))


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(0.5, [0.844, 0.114, 0.042]), (1, [0.629, 0.231, 0.140]), (2, [0.481, 0.292, 0.227])],
)
def test_temperature(temperature, expected):
    result = csoftmax.softmax([2, 1, 0.5], temperature=temperature)
    np.testing.assert_array_equal(result.round(3), expected)


def test_cross_entropy_is_minus_log_of_one_probability():
    probabilities = np.array([0.2, 0.1, 0.7])
    assert csoftmax.cross_entropy(np.log(probabilities), 2).round(3) == 0.357


@pytest.mark.parametrize(
    "module",
    ["_binary", "_config", "_gradients", "_losses", "_softmax", "_threads", "reference"],
)
def test_docstrings(module):
    module = importlib.import_module(f"csoftmax.{module}")
    try:
        failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    finally:
        csoftmax.set_num_threads(None)
    assert tried > 0
    assert failed == 0
