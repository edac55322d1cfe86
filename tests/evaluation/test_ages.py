import datetime as dt

import numpy as np
import pytest

from segue.evaluation.ages import as_seconds

MOMENT = dt.datetime(2001, 2, 3, 4, 5, 6, tzinfo=dt.UTC)


@pytest.mark.parametrize("per_second", [1, 10**3, 10**6, 10**9])
def test_unix_times_in_any_unit_are_seconds(per_second):
    times = np.array([int(MOMENT.timestamp()) * per_second], np.int64)
    assert as_seconds(times) == pytest.approx([MOMENT.timestamp()])


def test_datetimes_are_seconds():
    times = np.array(["2001-02-03T04:05:06.5"], "datetime64[us]")
    assert as_seconds(times) == pytest.approx([MOMENT.timestamp() + 0.5])


@pytest.mark.parametrize("times", [[0, 1, 2], [0, 10**9], [2.5], []])
def test_times_that_are_only_an_order_are_no_moments(times):
    assert as_seconds(np.array(times)) is None
