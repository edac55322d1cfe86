"""Calibration: whether what a model gives a probability of a tenth happens once in ten times.

A model trained by softmax over the catalogue says how probable each item is as the next one. What
is judged is what would be shown: the probabilities of each user's best items.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segue.data.splits import HeldOut
from segue.errors import DataError, RequestError
from segue.evaluation.protocol import Scorer, blocks_of, candidate_mask
from segue.retrieval.selection import top_k

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

NUM_BINS = 10
Z_95 = 1.959964  # of the normal distribution, two-sided


@dataclass(frozen=True)
class Bin:
    """Predictions of about the same probability.

    Attributes:
        predictions: How many.
        predicted: The mean of their probabilities.
        observed: The share of them that came true.
        low, high: 95% around it, by Wilson's score interval.
    """

    predictions: int
    predicted: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True)
class Reliability:
    """How far probabilities are from what happened.

    Attributes:
        error: The expected calibration error, 0 the best.
        predicted: The mean of all probabilities.
        observed: The share of all predictions that came true.
        bins: In the order of the probabilities.
    """

    error: float
    predicted: float
    observed: float
    bins: list[Bin]


def top_probabilities(scorer: Scorer, held_out: HeldOut, k: int = 10) -> tuple[Floats, Mask]:
    """The probabilities of each user's best k items, and which of the items is the target.

    The softmax of the scores over all candidates, as other items are not recommended; in float64,
    from the greatest score on, so that nothing overflows.

    Args:
        scorer: Whose scores are logarithms of probabilities, but for a constant.
        held_out: Users, their histories and targets.
        k: At least 1; cut to the number of items.

    Returns:
        float64[users, k], 0 where a user has fewer candidates, and bool[users, k].
    """
    if k <= 0:
        raise RequestError(f"k={k} asks for nothing; ask for at least 1")
    k = min(k, held_out.histories.vocabulary.num_items)
    probabilities = np.zeros((held_out.num_users, k))
    is_target = np.zeros((held_out.num_users, k), np.bool_)
    for users in blocks_of(held_out):
        is_candidate = candidate_mask(held_out, users)
        scores = np.where(is_candidate, scorer.score(held_out.histories, users), -np.inf)
        items, best = top_k(scores.astype(np.float32, copy=False), k)
        greatest = best[:, :1].astype(np.float64)
        greatest[~np.isfinite(greatest)] = 0.0
        total = np.exp(scores - greatest).sum(axis=1, keepdims=True)
        shares = np.exp(best - greatest) / np.maximum(total, np.finfo(np.float64).tiny)
        probabilities[users] = shares
        is_target[users] = (items == held_out.targets[users, None]) & (shares > 0)
    return probabilities, is_target


def reliability(probabilities: Floats, outcomes: Mask, bins: int = NUM_BINS) -> Reliability:
    """The expected calibration error: sum over bins of n_b / n |observed_b - predicted_b|.

    The bins hold as many predictions each, as equal as can be, and not as wide a range: among many
    items most probabilities are small, and bins of equal width would leave all but one empty.

    Sources: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", AAAI 2015, for the error; Nguyen and O'Connor, "Posterior calibration and exploratory
    analysis for natural language processing models", EMNLP 2015, for the bins; Wilson, "Probable
    inference, the law of succession, and statistical inference", JASA 22(158), 1927.

    Args:
        probabilities: float64[predictions], each in [0, 1].
        outcomes: bool[predictions], whether it came true.
        bins: How many, at least 1; fewer where there are fewer predictions.

    Raises:
        RequestError: `bins` is not positive.
        DataError: There are no predictions, or one is no probability.
    """
    if bins <= 0:
        raise RequestError(f"bins={bins} group nothing; give at least 1")
    if not probabilities.size or probabilities.shape != outcomes.shape:
        raise DataError(
            f"{probabilities.size:,} predictions with {outcomes.size:,} outcomes do not match; "
            f"give one outcome for each of at least one prediction"
        )
    is_probability = (probabilities >= 0) & (probabilities <= 1)
    if not is_probability.all():
        raise DataError(f"{probabilities[~is_probability][0]} is no probability, from 0 to 1")
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(bins, probabilities.size))
    found = [_bin(probabilities[part], outcomes[part]) for part in parts]
    gaps = [each.predictions * abs(each.observed - each.predicted) for each in found]
    return Reliability(
        error=sum(gaps) / probabilities.size,
        predicted=float(probabilities.mean()),
        observed=float(outcomes.mean()),
        bins=found,
    )


def _bin(probabilities: Floats, outcomes: Mask) -> Bin:
    low, high = wilson(int(np.count_nonzero(outcomes)), outcomes.size)
    return Bin(outcomes.size, float(probabilities.mean()), float(outcomes.mean()), low, high)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95% interval of a share: (p + z²/2n ± z sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n)."""
    share, weight = successes / trials, Z_95**2 / trials
    centre = share + weight / 2
    reach = Z_95 * np.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return float(max(0.0, centre - reach) / (1 + weight)), float((centre + reach) / (1 + weight))
