"""A few thousand of the random calls of `fuzz`, for every build and function."""

import pytest

from .fuzz import FUNCTIONS, Call, run_many

CALLS = 500    # of each function, with each build
SEED = 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_random_calls(name, build, limits):
    first, step = FUNCTIONS.index(name), len(FUNCTIONS)
    table, failures = run_many(range(first, CALLS * step, step), SEED, limits)
    text = "\n".join(
        f"CSOFTMAX_ISA={build} python -m tests.fuzz --seed {SEED} --only {number}\n{what}"
        for number, what in failures
    )
    assert not failures, text
    calls, refused, *_ = table[name]
    assert calls == CALLS
    assert 0 < refused < CALLS / 4


def test_a_call_follows_from_seed_and_number():
    for number in range(200):
        one, same, other = Call(1, number), Call(1, number), Call(2, number)
        assert one.name == same.name == other.name
        assert one.described() == same.described()
        assert [one.tobytes() for one in one.buffers] == [one.tobytes() for one in same.buffers]
