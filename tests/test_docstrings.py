"""The form of the docstrings: numpydoc's checks, and that names in backticks are names."""

import inspect
import re
import tomllib
from pathlib import Path

import pytest
from numpydoc.validate import validate

import csoftmax

CONFIGURATION = Path(__file__).parents[1] / "pyproject.toml"
EXCLUDED = tomllib.loads(CONFIGURATION.read_text("utf-8"))["tool"]["numpydoc_validation"]["checks"]
FUNCTIONS = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (csoftmax, csoftmax.reference)
    for name in module.__all__
    if callable(getattr(module, name))
}
PUBLIC = {"csoftmax", *csoftmax.__all__, *csoftmax.reference.__all__}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpydoc(name):
    assert EXCLUDED[0] == "all"    # the others are what is left out of it
    errors = validate(name)["errors"]
    assert not [error for error in errors if error[0] not in EXCLUDED]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_names(name):
    """In single backticks stand parameters and public functions; Sphinx links the latter."""
    function = FUNCTIONS[name]
    without_formulas_and_code = re.sub(r":math:`[^`]*`|``[^`]*``", "", inspect.getdoc(function))
    names = set(re.findall(r"`([^`]*)`", without_formulas_and_code))
    assert names <= PUBLIC | inspect.signature(function).parameters.keys()
