"""The memory of large results, which is kept for the next one."""

import sys

import numpy as np
import pytest

import csoftmax

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is kept on Linux alone"
)

@pytest.fixture(params=[(9000, 700), (900, 300)], ids=["25 MB", "1 MB"])
def x(request):
    return np.random.default_rng(0).normal(size=request.param).astype(np.float32)


def address(array):
    return array.ctypes.data


def test_memory_is_used_again(x):
    first = csoftmax.softmax(x)
    where = address(first)
    expected = first.copy()
    del first
    second = csoftmax.softmax(x)
    assert address(second) == where
    np.testing.assert_array_equal(second, expected)


def test_a_result_that_is_alive_keeps_its_memory(x):
    first = csoftmax.softmax(x)
    expected = first.copy()
    others = [csoftmax.log_softmax(x) for _ in range(3)]
    assert len({address(array) for array in (first, *others)}) == 4
    np.testing.assert_array_equal(first, expected)
    view = first[5:]
    del first, others
    csoftmax.softmax(x)
    np.testing.assert_array_equal(view, expected[5:])


def test_memory_that_is_too_small_or_far_too_large_is_not_used(x):
    del_me = csoftmax.softmax(x)
    del del_me
    larger = csoftmax.softmax(np.concatenate([x, x]))
    np.testing.assert_array_equal(larger[: len(x)], larger[len(x) :])
    del larger
    np.testing.assert_array_equal(csoftmax.softmax(x)[:9], csoftmax.softmax(x[:9]))


def test_a_result_is_an_ordinary_array(x):
    result = csoftmax.softmax(x)
    assert result.flags.owndata
    assert result.base is None
    expected = result[:10].copy()
    result.resize((len(x) + 1000, x.shape[1]), refcheck=False)
    np.testing.assert_array_equal(result[:10], expected)
    assert not result[len(x) :].any()


def test_gradients_and_other_layouts_use_it_too(x):
    _, grad = csoftmax.cross_entropy_value_and_grad(x, np.zeros(len(x), int))
    where = address(grad)
    del grad
    result = csoftmax.softmax(np.asfortranarray(x))
    assert address(result) == where
    assert result.flags.c_contiguous


def test_results_of_several_sizes_keep_theirs(x):
    sizes = [x, np.concatenate([x] * 5), x[: len(x) * 99 // 100]]
    first = [address(csoftmax.softmax(one)) for one in sizes[:2]]
    for _ in range(3):
        assert [address(csoftmax.softmax(one)) for one in sizes] == [*first, first[0]]
