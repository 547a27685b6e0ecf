"""Sphinx: `nox -s docs` builds the pages, and says what is wrong with them."""

import csoftmax

project = "csoftmax"
author = "The csoftmax developers"
copyright = author
version = release = csoftmax.__version__

extensions = [
    "myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton",
]
# Nothing is linked outside of these pages but by its full address (no intersphinx): what a build
# checks doesn't depend on a network.
nitpicky = True

# What is copied is the code, without prompts and results.
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

numpydoc_show_class_members = False
default_role = "autolink"    # parameters become italics; tests/test_docstrings.py checks the names
smartquotes = False    # "mean" is what to write in a program

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "csoftmax"
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["tables.css"]

# Publishers answer programs with 403, whether the page is there or not.
linkcheck_ignore = [r"https://doi\.org/"]
linkcheck_retries = 2
linkcheck_timeout = 20
