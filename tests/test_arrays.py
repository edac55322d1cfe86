import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from segue.arrays import offsets_of, ranges


def test_offsets_are_where_each_group_begins_and_the_end():
    assert offsets_of(np.array([2, 0, 3])).tolist() == [0, 2, 2, 5]
    assert offsets_of(np.zeros(0, np.int64)).tolist() == [0]
    assert offsets_of(np.array([True, False, True])).tolist() == [0, 1, 1, 2]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6))))
def test_ranges_are_pythons_one_after_the_other(pairs):
    starts, lengths = (
        (np.array(column, np.int64) for column in zip(*pairs, strict=True))
        if pairs
        else (np.zeros(0, np.int64),) * 2
    )
    expected = [number for start, length in pairs for number in range(start, start + length)]
    assert ranges(starts, lengths).tolist() == expected
