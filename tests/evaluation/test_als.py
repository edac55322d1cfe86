import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from threadpoolctl import threadpool_limits

from segue.data.histories import Histories
from segue.data.vocabulary import Vocabulary
from segue.errors import RequestError
from segue.evaluation import als
from segue.evaluation.als import ALS

NUM_ITEMS = 12
Lists = list[list[int]]


def histories_of(lists: Lists) -> Histories:
    vocabulary = Vocabulary.from_ids(pl.int_range(1, NUM_ITEMS + 1, eager=True))
    return Histories.from_lists(vocabulary, [np.array(each, np.int32) for each in lists])


def two_tastes() -> Lists:
    """Half the users choose among the items 1 to 5, half among 6 to 10; nobody has 11 and 12."""
    rng = np.random.default_rng(0)
    return [(rng.permutation(5)[:3] + 1 + 5 * (user % 2)).tolist() for user in range(60)]


def dense_scores(
    items: npt.NDArray[np.float64], history: list[int], regularization: float, confidence: float
) -> npt.NDArray[np.float64]:
    """The normal equations of Hu, Koren and Volinsky, equation 4, in plain NumPy."""
    has = np.isin(np.arange(NUM_ITEMS + 1), history).astype(np.float64)
    weights = np.where(has > 0, confidence, 1.0)
    left = items.T @ (weights[:, None] * items) + regularization * np.eye(items.shape[1])
    return items @ np.linalg.solve(left, items.T @ (weights * has))


@pytest.mark.parametrize(("regularization", "confidence"), [(10.0, 1.0), (0.5, 8.0)])
def test_a_user_is_solved_for_from_the_history_at_hand(
    regularization: float, confidence: float
) -> None:
    scorer = ALS(
        histories_of(two_tastes()),
        factors=4,
        regularization=regularization,
        confidence=confidence,
    )
    asked = [[1, 2], [9, 6, 9, 7], [3, 8], [11]]
    scores = scorer.score(histories_of(asked), slice(0, 4))
    assert scores.dtype == np.float32
    for row, history in zip(scores, asked, strict=True):
        items = scorer.item_factors.astype(np.float64)
        assert row == pytest.approx(
            dense_scores(items, history, regularization, confidence), abs=1e-4
        )


def test_the_taste_of_a_history_comes_first() -> None:
    scorer = ALS(histories_of(two_tastes()), factors=4, regularization=1.0)
    scores = scorer.score(histories_of([[1, 2, 3], [6, 7, 8]]), slice(0, 2))
    assert set(np.argsort(-scores[0])[:5]) == {1, 2, 3, 4, 5}
    assert set(np.argsort(-scores[1])[:5]) == {6, 7, 8, 9, 10}


def test_users_are_scored_alike_in_any_block() -> None:
    scorer = ALS(histories_of(two_tastes()), factors=4)
    asked = histories_of([[1, 2], [], [7]])
    together = scorer.score(asked, slice(0, 3))
    apart = [scorer.score(asked, slice(user, user + 1)) for user in range(3)]
    assert together == pytest.approx(np.concatenate(apart), abs=1e-6)
    assert not together[1].any()


def test_items_and_padding_that_were_never_trained_on_score_nothing() -> None:
    scorer = ALS(histories_of(two_tastes()), factors=4)
    scores = scorer.score(histories_of([[1, 2]]), slice(0, 1))[0]
    assert not scores[[0, 11, 12]].any()


def test_the_seed_alone_decides_the_factors() -> None:
    train = histories_of(two_tastes())
    first = ALS(train, factors=4, seed=1).item_factors
    with threadpool_limits(1):
        assert np.array_equal(first, ALS(train, factors=4, seed=1).item_factors)
    assert not np.array_equal(first, ALS(train, factors=4, seed=2).item_factors)


@pytest.mark.parametrize("setting", ["factors", "regularization", "confidence", "iterations"])
def test_a_setting_that_factorises_nothing_is_refused(setting: str) -> None:
    with pytest.raises(RequestError, match=f"{setting}=0 factorises nothing"):
        ALS(histories_of([[1, 2]]), **{setting: 0})  # type: ignore[arg-type]


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(als, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'segue\[als\]'"):
        ALS(histories_of([[1, 2]]))
