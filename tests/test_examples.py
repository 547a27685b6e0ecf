"""Worked examples that users know from books and web pages, and those of docstrings and pages."""

import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

import csoftmax

ROOT = Path(__file__).parents[1]

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
    ["_binary", "_config", "_divergence", "_gradients", "_losses", "_sampling", "_softmax",
     "_threads", "reference"],
)  # fmt: skip
def test_docstrings(module):
    module = importlib.import_module(f"csoftmax.{module}")
    try:
        failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    finally:
        csoftmax.set_num_threads(None)
    assert tried > 0
    assert failed == 0


def recipes():
    """Each section that has examples: it stands alone."""
    for page in (ROOT / "docs" / "index.md", ROOT / "docs" / "recipes.md"):
        text = re.sub(r"(?m)^```.*$", "", page.read_text("utf-8"))    # ends an output
        for section in re.split(r"(?m)^## ", text)[1:]:
            title = section.partition("\n")[0]
            name = f"{page.name}: {title}"
            examples = doctest.DocTestParser().get_doctest(section, {}, name, page.name, 0)
            if examples.examples:
                yield pytest.param(examples, id=name)


@pytest.mark.parametrize("examples", list(recipes()))
def test_recipes(examples):
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(examples, out=report.append).failed == 0, "".join(report)


def test_readme():
    """Its Python examples run; what they return stands in comments."""
    examples = re.findall(r"(?ms)^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"))
    assert examples
    for example in examples:
        exec(example, {})
