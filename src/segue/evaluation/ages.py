"""Times as moments: whether a log's times are more than an order, and what is counted in days."""

from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.times import UNIX_UNITS

DAY_S = 86_400


def as_seconds(times: npt.NDArray[Any]) -> npt.NDArray[np.float64] | None:
    """Unix times in seconds, float64[n]; None where the times are only an order, such as positions.

    Numbers are Unix times where the least of them is that of 1973 or later in some unit.

    Args:
        times: int64, float64 or datetime64[us], [n].
    """
    if not times.size:
        return None
    if times.dtype.kind == "M":
        seconds: npt.NDArray[np.float64] = times.astype("datetime64[us]").astype(np.int64) / 10**6
        return seconds
    least = float(times.min())
    for smallest, per_second in UNIX_UNITS:
        if least >= smallest:
            return times / per_second
    return None
