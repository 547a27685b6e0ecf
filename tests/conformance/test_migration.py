"""Every row of docs/migration.md: both calls on the same numbers, of libraries that are here."""

import os
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import csoftmax

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
DRAWS = 1000
ROW = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \|", re.MULTILINE)


def arrays():
    """By the names that the page gives them."""
    rng = np.random.default_rng(0)
    z = 3 * rng.normal(size=(4, 5))
    return {
        "z": z,
        "p": csoftmax.softmax(z),
        "y": np.array([2, 0, 4, 0]),
        "t": rng.dirichlet(np.ones(5), size=4),
        "b": rng.integers(2, size=(4, 5)).astype(float),
        "w": rng.uniform(0.5, 2, size=5),
        "s": rng.uniform(0.5, 2, size=4),
        "m": np.tri(4, 5, 1, dtype=bool),
        "g": rng.normal(size=(4, 5)),
        "images": rng.normal(size=(2, 5, 3, 4)),
        "labels": rng.integers(5, size=(2, 3, 4)),
        **dict(zip(("query", "key", "value"), rng.normal(size=(3, 2, 4, 8)), strict=True)),
        "u": 3 * rng.normal(size=(4, 5)),
    }


def imported(*modules):
    return {name.rpartition(".")[2]: import_module(name) for name in modules}


def of_torch():
    torch = import_module("torch")
    torch.manual_seed(0)
    tensors = {name: torch.from_numpy(array) for name, array in arrays().items()}
    tensors["z"].requires_grad_()
    return {"torch": torch, "F": torch.nn.functional, **tensors}


class NoiseOfTorch:
    """What gumbel_softmax adds where `of_torch` was called before."""

    def gumbel(self, size):
        torch = import_module("torch")
        torch.manual_seed(0)
        return -torch.empty(size, dtype=torch.float64).exponential_().log().numpy()


def of_jax():
    modules = imported("jax", "optax")
    asarray = modules["jax"].numpy.asarray
    return {**modules, **{name: asarray(array) for name, array in arrays().items()}}


def of_keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")    # TensorFlow's is the default
    return {**imported("keras"), **arrays()}


def of_sklearn():
    modules = imported("sklearn.utils.extmath", "sklearn.metrics")
    losses = import_module("sklearn._loss.loss")
    names = arrays()
    names["y"] = names["y"].astype(float)
    return {
        "HalfMultinomialLoss": losses.HalfMultinomialLoss,
        "HalfBinomialLoss": losses.HalfBinomialLoss,
        **modules, **names,
    }  # fmt: skip


def onnx_operator(name):
    onnx = import_module("onnx")
    evaluator = import_module("onnx.reference").ReferenceEvaluator

    def call(*inputs, **attributes):
        names = [f"input{i}" for i in range(len(inputs))]
        node = onnx.helper.make_node(name, names, ["result"], **attributes)
        return evaluator(node).run(None, dict(zip(names, inputs, strict=True)))[0]

    return call


def of_transformers():
    warpers = import_module("transformers.generation.logits_process")
    names = ["TemperatureLogitsWarper", "TopKLogitsWarper", "TopPLogitsWarper", "MinPLogitsWarper"]
    return {**of_torch(), **{name: getattr(warpers, name) for name in names}}


def of_onnx():
    operators = [
        "Softmax", "LogSoftmax", "ReduceLogSumExp", "SoftmaxCrossEntropyLoss",
        "NegativeLogLikelihoodLoss", "Sigmoid",
    ]  # fmt: skip
    return {**{name: onnx_operator(name) for name in operators}, **arrays()}


# Section of the page to the names that its calls use.
LIBRARIES = {
    "NumPy by hand": lambda: {"np": np, **arrays()},
    "scipy.special": lambda: {"np": np, **imported("scipy.special", "scipy.stats"), **arrays()},
    "torch.nn.functional": of_torch,
    "jax.nn and optax": of_jax,
    "tf.keras": of_keras,
    "tf.nn": lambda: {"tf": import_module("tensorflow"), **arrays()},
    "scikit-learn": of_sklearn,
    "transformers and llama.cpp": of_transformers,
    "ONNX operators": of_onnx,
}


def sections():
    """Title to rows, of the sections that have a table."""
    found = {}
    for section in re.split(r"(?m)^## ", PAGE.read_text(encoding="utf-8"))[1:]:
        title, _, text = section.partition("\n")
        rows = ROW.findall(text)
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len(rows) == len(lines) - 2, f"a row of {title} is not two calls and a remark"
        found[title] = rows
    return found


SECTIONS = sections()


def test_every_section_has_its_library():
    assert SECTIONS.keys() == LIBRARIES.keys()


def as_arrays(result):
    """In NumPy, of a tensor or array of any library, or of several."""
    results = result if isinstance(result, tuple | list) else (result,)
    return [np.asarray(one.detach() if hasattr(one, "detach") else one) for one in results]


def test_filters_before_the_temperature():
    """The example for llama.cpp, step by step, and its short form."""
    text = PAGE.read_text(encoding="utf-8")
    example = re.search(r"(?ms)^```python\n(.*?)^```", text)[1]
    short = re.search(r"Without `top_p` that is `([^`]+)`", text)[1]
    logits = 2 * np.random.default_rng(0).normal(size=300)
    order = np.argsort(-logits)[:40]
    weights = np.exp(logits[order])
    cumulated = weights.cumsum() / weights.sum()
    for top_p, call in ((0.95, example), (1, f"token = {short}")):
        kept = order[np.append(0, cumulated[:-1]) < top_p]
        kept = kept[logits[kept] >= logits.max() + np.log(0.05)]
        names = {"logits": logits, "rng": np.random.default_rng(0), "np": np, **vars(csoftmax)}
        drawn = []
        for _ in range(DRAWS):
            exec(call, names)
            drawn.append(names["token"])
        assert set(drawn) <= set(kept)
        shares = (np.array(drawn)[:, None] == kept).mean(axis=0)
        expected = csoftmax.softmax(logits[kept], temperature=0.8)
        np.testing.assert_allclose(shares, expected, rtol=0, atol=2.5 / DRAWS**0.5)


def frequencies(call, names):
    """How often which class is drawn, at each place of the result."""
    drawn = np.array([as_arrays(eval(call, names | {"seed": seed}))[0] for seed in range(DRAWS)])
    return (drawn[..., None] == np.arange(5)).mean(axis=0)


@pytest.mark.parametrize(
    ("library", "theirs", "ours"),
    [(title, *row) for title, rows in SECTIONS.items() for row in rows],
)
@pytest.mark.filterwarnings("default")    # of the other libraries
def test_row(library, theirs, ours):
    """To the digits of float32, which JAX and Keras compute in: this is about what is computed."""
    try:
        names = LIBRARIES[library]()
    except ImportError as error:
        pytest.skip(str(error))
    functions = {name: getattr(csoftmax, name) for name in csoftmax.__all__}
    our_names = {**functions, **arrays(), "np": np, "rng": NoiseOfTorch()}
    if "seed" in ours:    # to five standard deviations of the difference of two frequencies
        expected, result = frequencies(theirs, names), frequencies(ours, our_names)
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=0, atol=5 * (0.5 / DRAWS) ** 0.5)
        return
    expected, results = as_arrays(eval(theirs, names)), as_arrays(eval(ours, our_names))
    for result, wanted in zip(results, expected, strict=True):
        assert result.shape == wanted.shape
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=2e-6)
