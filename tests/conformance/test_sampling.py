"""top_log_probs and sample beside PyTorch, and beside the filters of transformers in their order.

What TopKLogitsWarper, TopPLogitsWarper and MinPLogitsWarper of transformers.generation do, in the
order in which `generate` has them, is written here in PyTorch: the library itself is not needed.
"""

import numpy as np
import pytest

import csoftmax

from ..helpers import Prescribed

torch = pytest.importorskip("torch")


def top_k_warper(scores, k):
    kth = scores.topk(min(k, scores.shape[-1])).values[..., -1:]
    return scores.masked_fill(scores < kth, -torch.inf)


def top_p_warper(scores, p):
    """What comes first in ascending order, as long as it has no more than 1 - p, but not all."""
    ascending, places = scores.sort()
    removed = ascending.softmax(-1).cumsum(-1) <= 1 - p
    removed[..., -1:] = False
    return scores.masked_fill(torch.zeros_like(removed).scatter(-1, places, removed), -torch.inf)


def min_p_warper(scores, p):
    probabilities = scores.softmax(-1)
    least = p * probabilities.max(-1, keepdim=True).values
    return scores.masked_fill(probabilities < least, -torch.inf)


def warped(x, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
    """The probabilities that transformers draws from."""
    scores = torch.from_numpy(x.astype(float)) / temperature
    if top_k is not None:
        scores = top_k_warper(scores, top_k)
    if top_p < 1:
        scores = top_p_warper(scores, top_p)
    if min_p > 0:
        scores = min_p_warper(scores, min_p)
    return scores.softmax(-1).numpy()


@pytest.mark.parametrize("seed", range(60))
def test_filters_in_the_order_of_transformers(seed, dtype):
    """Which class each of many numbers gives, but for numbers as close to a border as rounding."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([2, 5, 30, 200, 3000]))
    x = (rng.choice([1, 4]) * rng.normal(size=(10, n))).astype(dtype)
    filters = {
        "temperature": rng.uniform(0.2, 3), "top_k": int(rng.integers(1, n + 2)),
        "top_p": rng.uniform(0.1, 1), "min_p": 10 ** rng.uniform(-3, 0),
    }  # fmt: skip
    filters = {name: filters[name] for name in filters if rng.random() < 0.7}
    borders = warped(x, **filters).cumsum(-1)
    numbers = rng.random((1000, len(x)))
    drawn = csoftmax.sample(x, rng=Prescribed(numbers), size=1000, **filters)
    low, high = (
        np.array([row.searchsorted(some, "right") for row, some in zip(borders, one, strict=True)])
        for one in ((numbers - 1e-6).T, (numbers + 1e-6).T)
    )  # fmt: skip
    clear = low == high
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(drawn.T[clear], low[clear])


@pytest.mark.parametrize("n", [1, 2, 17, 128, 5000])
def test_topk(n, dtype):
    """Of logits that differ: PyTorch gives equal ones in any order."""
    x = np.random.default_rng(n).permuted(np.tile(np.arange(n) / 64, (9, 1)), axis=1).astype(dtype)
    for k in {1, min(n, 20), n}:
        right = torch.log_softmax(torch.from_numpy(x), -1).topk(k)
        indices, log_p = csoftmax.top_log_probs(x, k)
        np.testing.assert_array_equal(indices, torch.from_numpy(x).topk(k).indices.numpy())
        np.testing.assert_allclose(log_p, right.values.numpy(), rtol=16 * np.finfo(dtype).eps)
