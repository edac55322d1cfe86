"""Whether two rankings of the same users differ by more than the draw of the users explains."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segue.errors import DataError, RequestError
from segue.evaluation.metrics import Values, resampled_means

SAMPLES = 2_000
LEVEL = 0.95
# Means of the same numbers added up in another order differ by less.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Difference:
    """The mean over the users of one metric minus another, both of the same users.

    Attributes:
        mean: First minus second; above 0 the first is better.
        low, high: The ends of its interval.
        p_value: How often a difference as large, either way, would come from chance alone.
    """

    mean: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(
    first: Values, second: Values, *, samples: int = SAMPLES, level: float = LEVEL, seed: int = 0
) -> Difference:
    """The mean difference of two metrics of the same users, its percentile interval and p-value.

    Users are drawn with replacement, each with both its values. The p-value is two-sided: the share
    of the resamples, moved so that their true mean is 0, whose mean is at least as far from 0 as
    the one observed. The sample itself counts as one of them, so that it is never 0.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, sections 13.3 and 16.4;
    for rankings Sakai, "Evaluating evaluation metrics based on the bootstrap", SIGIR 2006; the
    count of the sample itself, Davison and Hinkley, "Bootstrap methods and their application",
    1997, section 4.4.

    Args:
        first, second: float64[users], a metric of each user, in the same order of users.
        samples: How many resamples.
        level: The share of them between the two ends, in (0, 1).
        seed: Of the draws.

    Raises:
        RequestError: `samples` is not positive, or `level` is out of its range.
        DataError: The two are empty, or not of the same users.
    """
    if samples <= 0:
        raise RequestError(f"samples={samples} resamples nothing; give a positive number")
    if not 0 < level < 1:
        raise RequestError(f"level={level} is no share; give one between 0 and 1, such as 0.95")
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise DataError(
            f"values of the shapes {first.shape} and {second.shape} are not of the same users; "
            f"give one of each for every user"
        )
    # Users with the same difference are drawn together, as many of them as a multinomial says.
    distinct, counts = np.unique(first - second, return_counts=True)
    mean = float(distinct @ counts / first.size)
    rng = np.random.default_rng(seed)
    means = resampled_means(distinct[:, None], counts, samples, rng)[:, 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    is_as_far = np.abs(means - mean) >= abs(mean) - ROUNDING
    p_value = (np.count_nonzero(is_as_far) + 1) / (samples + 1)
    return Difference(mean, float(low), float(high), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several comparisons, each raised so that all of them may be believed at once.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6(2), 1979.
    """
    given = np.asarray(p_values, np.float64)
    order = np.argsort(given, kind="stable")
    raised = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(raised, 1.0)
    return [float(each) for each in adjusted]
