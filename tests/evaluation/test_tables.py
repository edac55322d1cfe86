import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.errors import DataError
from segue.evaluation.tables import ranks_of_tables

RECOMMENDED = pl.DataFrame(
    {"user_id": [1, 1, 2, 2], "item_id": ["a", "b", "b", "c"], "rank": [1, 2, 1, 2]}
)
TARGETS = pl.DataFrame({"user_id": [2, 1, 3], "item_id": ["c", "a", "a"]})


def test_each_target_has_the_rank_it_was_recommended_at_and_0_where_it_was_not():
    assert ranks_of_tables(RECOMMENDED, TARGETS).tolist() == [2, 1, 0]


@given(st.lists(st.permutations(range(6)), min_size=1, max_size=8), st.integers(1, 6), st.data())
def test_ranks_agree_with_looking_each_target_up(orders, k, data):
    rows = [
        (user, item, place)
        for user, order in enumerate(orders)
        for place, item in enumerate(order[:k], 1)
    ]
    recommended = pl.DataFrame(
        data.draw(st.permutations(rows)), schema=["user_id", "item_id", "rank"], orient="row"
    )
    wanted = [data.draw(st.integers(0, 5)) for _ in orders]
    targets = pl.DataFrame({"user_id": range(len(orders)), "item_id": wanted})
    expected = [
        order.index(item) + 1 if item in order[:k] else 0
        for order, item in zip(orders, wanted, strict=True)
    ]
    assert ranks_of_tables(recommended, targets).tolist() == expected


@pytest.mark.parametrize(
    ("recommended", "targets", "told"),
    [
        (RECOMMENDED.drop("rank"), TARGETS, "recommendations have no column rank"),
        (RECOMMENDED, TARGETS.drop("item_id"), "targets have no column item_id"),
        (RECOMMENDED, pl.concat([TARGETS, TARGETS]), "a user has two targets"),
        (RECOMMENDED.cast({"user_id": pl.String}), TARGETS, "user_id is String"),
        (pl.concat([RECOMMENDED, RECOMMENDED]), TARGETS, "recommended twice"),
    ],
)
def test_tables_that_do_not_fit_are_refused(recommended, targets, told):
    with pytest.raises(DataError, match=told):
        ranks_of_tables(recommended, targets)
