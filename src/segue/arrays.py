"""Flat arrays of groups, one after another: where each begins, and the numbers in each."""

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def offsets_of(counts: npt.NDArray[Any]) -> Ints:
    """Where each of consecutive groups of these sizes begins, and the end: int64[groups + 1].

    Args:
        counts: int or bool, [groups].
    """
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """The numbers start, start + 1, ... of each range, one range after the other.

        starts  [10, 40]   lengths [3, 2]   ->   [10, 11, 12, 40, 41]

    Args:
        starts, lengths: int64[ranges].
    """
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
