import datetime as dt
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data import splits
from segue.data.histories import Histories
from segue.data.log import InteractionLog
from segue.data.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    HeldOut,
    Split,
    global_time,
    last_basket,
    leave_one_out,
    no_split,
)
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError

Row = tuple[int, int, int]
rows_strategy = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(0, 9)), min_size=1, max_size=60
)


def log_of(rows: list[Row]) -> InteractionLog:
    """A log of (user, item, time) rows."""
    schema = ["user_id", "item_id", "timestamp"]
    return InteractionLog(pl.DataFrame(rows, schema=schema, orient="row"))


def outside(histories: Histories) -> dict[int, list[int]]:
    """Each user's history in outside ids."""
    return {
        user: histories.vocabulary.decode(histories.items_of(index)).to_list()
        for index, user in enumerate(histories.user_ids.to_list())
    }


def targets_of(held_out: HeldOut | None) -> dict[int, int]:
    assert held_out is not None
    targets = held_out.histories.vocabulary.decode(held_out.targets)
    return dict(zip(held_out.histories.user_ids, targets, strict=True))


LOG = log_of(
    [
        *((1, item, time) for time, item in enumerate([10, 20, 30, 40])),
        *((2, item, time) for time, item in enumerate([50, 10])),
        *((3, item, time) for time, item in enumerate([20, 30, 60], start=5)),
    ]
)


def test_successive_targets_are_all_test_items_each_with_what_came_before() -> None:
    rows = [
        *((1, item, time) for item, time in ((10, 0), (20, 1), (30, 5), (40, 6), (10, 8))),
        *((2, item, time) for item, time in ((20, 7), (30, 9))),
        *((3, item, time) for item, time in ((10, 2), (50, 5))),
    ]
    split = global_time(log_of(rows), validation_from=5, test_from=6)
    successive = split.successive_test()
    assert successive is not None
    histories, vocabulary = successive.histories, successive.histories.vocabulary
    assert histories.user_ids.to_list() == [1, 1, 2, 2]
    assert vocabulary.decode(successive.targets).to_list() == [40, 10, 20, 30]
    assert [vocabulary.decode(histories.items_of(row)).to_list() for row in range(4)] == [
        [10, 20, 30],
        [10, 20, 30, 40],
        [],
        [20],
    ]
    assert successive.owners is not None
    assert successive.owners.tolist() == [0, 0, 1, 1]
    assert successive.is_trained_user is not None
    assert successive.is_trained_user.tolist() == [True, True, False, False]
    assert split.test is not None
    assert split.test.owners is None
    assert targets_of(split.test) == {1: 40, 2: 20}
    assert split.test.is_trained_user is not None
    assert split.test.is_trained_user.tolist() == [True, False]
    assert split.test.take(np.array([1])).is_trained_user == [False]


def test_successive_targets_of_leave_one_out_are_the_last_items() -> None:
    split = leave_one_out(LOG)
    successive = split.successive_test()
    assert targets_of(successive) == {1: 40, 3: 60}
    assert no_split(LOG).successive_test() is None


def test_successive_targets_with_too_much_before_them_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split = leave_one_out(LOG)
    monkeypatch.setattr(splits, "MAX_SUCCESSIVE_ITEMS", 5)
    assert split.successive_test() is not None
    monkeypatch.setattr(splits, "MAX_SUCCESSIVE_ITEMS", 4)
    with pytest.raises(DataError, match="2 test items with 5 items before them exceed"):
        split.successive_test()


def test_leave_one_out_tests_on_the_last_and_validates_on_the_one_before() -> None:
    split = leave_one_out(LOG)
    assert outside(split.train) == {1: [10, 20], 2: [50, 10], 3: [20]}
    assert targets_of(split.validation) == {1: 30, 3: 30}
    assert targets_of(split.test) == {1: 40, 3: 60}
    assert split.validation is not None
    assert split.test is not None
    assert split.validation.part == "validation"
    assert split.test.part == "test"
    assert outside(split.validation.histories) == {1: [10, 20], 3: [20]}
    assert outside(split.test.histories) == {1: [10, 20, 30], 3: [20, 30]}


def test_the_vocabulary_of_every_part_is_that_of_the_whole_log() -> None:
    split = leave_one_out(LOG)
    assert split.train.vocabulary.ids.to_list() == [10, 20, 30, 40, 50, 60]
    assert split.test is not None
    assert split.test.histories.vocabulary is split.train.vocabulary


def test_users_too_short_to_hold_anything_out_are_counted() -> None:
    (note,) = leave_one_out(LOG).notes
    assert "2 users hold out one interaction each" in note
    assert "1 with fewer than 3 stay in training" in note


def test_if_every_user_is_too_short_leave_one_out_is_refused() -> None:
    with pytest.raises(DataError, match=r"no user has the 3 .* history has 2: use"):
        leave_one_out(log_of([(1, 1, 0), (1, 2, 1), (2, 1, 0)]))


def test_ties_at_the_cut_are_told() -> None:
    tied = log_of([(1, 1, 0), (1, 2, 5), (1, 3, 5), (2, 1, 5), (2, 2, 5), (2, 3, 6), (2, 4, 7)])
    split = leave_one_out(tied)
    assert targets_of(split.test) == {1: 3, 2: 4}
    assert split.notes[1] == "ties in time: for 1 users the log's order decides what that is"


def test_global_time_holds_out_everything_at_or_after_a_moment() -> None:
    split = global_time(LOG, validation_from=3, test_from=6)
    assert outside(split.train) == {1: [10, 20, 30], 2: [50, 10], 3: []}
    assert targets_of(split.validation) == {1: 40, 3: 20}
    assert targets_of(split.test) == {3: 30}
    assert split.validation is not None
    assert split.test is not None
    assert outside(split.validation.histories) == {1: [10, 20, 30], 3: []}
    assert outside(split.test.histories) == {3: [20]}
    assert split.notes == (
        "global-time: 5 interactions before 3 train, 2 before 6 validate, 2 from then on test",
    )


def test_global_time_cuts_at_80_and_90_percent_of_the_interactions_by_default() -> None:
    split = global_time(log_of([(user, 1, time) for time in range(100) for user in (1, 2)]))
    times = split.histories.timestamps
    assert times[split.parts == VALIDATION].min() == 80
    assert times[split.parts == TEST].min() == 90


@pytest.mark.parametrize(
    "moments",
    [
        (dt.datetime(2001, 9, 9, 2), dt.datetime(2001, 9, 9, 3)),
        ("2001-09-09T02:00:00", "2001-09-09 03:00:00"),
        (1_000_000_800, 1_000_004_400),
    ],
)
def test_moments_are_given_in_the_logs_unit_or_as_datetimes(moments: tuple[object, object]) -> None:
    # 1,000,000,000 is 2001-09-09 01:46:40 UTC; the interactions are half an hour apart.
    log = log_of([(1, 1, 1_000_000_000 + 1800 * step) for step in range(5)])
    split = global_time(log, validation_from=moments[0], test_from=moments[1])
    assert split.parts.tolist() == [0, 1, 1, 2, 2]


def test_a_log_of_datetimes_is_cut_at_dates() -> None:
    times = pl.Series([dt.datetime(2024, 1, day) for day in (1, 2, 3, 4, 5)])
    frame = pl.DataFrame({"user_id": ["a"] * 5, "item_id": [1, 2, 3, 4, 5], "timestamp": times})
    log = InteractionLog(frame.cast({"timestamp": pl.Datetime("us")}))
    split = global_time(log, validation_from=dt.date(2024, 1, 3), test_from="2024-01-05")
    assert split.parts.tolist() == [0, 0, 1, 1, 2]
    twice = Histories.from_log(InteractionLog(pl.concat([log.frame, log.frame])))
    assert global_time(twice, validation_from=dt.date(2024, 1, 4)).parts.tolist() == [
        *(0, 0, 0, 0, 0, 0, 1, 1, 2, 2)
    ]


@pytest.mark.parametrize(
    ("validation_from", "test_from"), [(6, 3), (5, 5), (-1, 3), (3, 99), (3, None)]
)
def test_moments_that_leave_a_part_empty_are_refused(validation_from: int, test_from: int) -> None:
    log = log_of([(1, 1, time) for time in (0, 1, 2, 3)])
    with pytest.raises(
        DataError, match=r"validation from .* give moments in order between 0 and 3"
    ):
        global_time(log, validation_from=validation_from, test_from=test_from)


def test_without_a_split_everything_trains() -> None:
    split = no_split(LOG)
    assert outside(split.train) == outside(split.histories)
    assert split.validation is None
    assert split.test is None


def test_a_log_and_its_histories_are_split_alike() -> None:
    histories = Histories.from_log(LOG)
    for function in (leave_one_out, global_time, no_split):
        assert function(histories).parts.tolist() == function(LOG).parts.tolist()
        assert function(histories).histories is histories


HISTORIES = Histories.from_log(log_of([(1, item, item) for item in (1, 2, 3, 4)] + [(2, 1, 9)]))


@pytest.mark.parametrize(
    ("kind", "parts", "message"),
    [
        ("leave-one-out", [0, 2, 0, 1, 0], "leakage: user 1 has a train interaction after one for"),
        (
            "leave-one-out",
            [0, 0, 2, 1, 0],
            "leakage: user 1 has a validation .* after one for test",
        ),
        ("leave-one-out", [0, 1, 1, 2, 0], "not 2 and 1 as for user 1"),
        ("leave-one-out", [0, 0, 0, 0, 2], "not 0 and 1 as for user 2"),
        ("global-time", [0, 0, 1, 2, 0], "leakage: something before validation happened at 9"),
        ("global-time", [0, 0, 0, 2, 1], "leakage: something before test happened at 9"),
        ("none", [0, 0, 0, 1, 0], "no split, yet 1 interactions are held out"),
        ("none", [0, 0, 0, 0], "4 parts for 5 interactions"),
        ("none", [0, 0, 0, 0, 3], "give each 0, 1 or 2"),
        ("random", [0, 0, 0, 0, 0], "split 'random' is unknown; it is one of leave-one-out"),
    ],
)
def test_a_split_that_leaks_or_contradicts_itself_is_refused(
    kind: str, parts: list[int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Split(kind, HISTORIES, np.array(parts, np.uint8))


def assert_nothing_leaks(split: Split, rows: list[Row]) -> None:
    """The parts partition the log, no user is lost, and histories end before their targets."""
    histories = split.histories
    everything = Counter((user, time) for user, _, time in rows)
    users = histories.user_ids.gather(histories.users).to_list()
    parted = {
        part: Counter(
            (user, time)
            for user, time, own in zip(users, histories.timestamps, split.parts, strict=True)
            if own == part
        )
        for part in (TRAIN, VALIDATION, TEST)
    }
    assert sum(parted.values(), Counter()) == everything
    assert split.train.user_ids.equals(histories.user_ids)
    assert split.train.num_interactions == sum(parted[TRAIN].values())
    for held_out, part in ((split.validation, VALIDATION), (split.test, TEST)):
        if held_out is None:
            assert not parted[part]
            continue
        assert set(held_out.histories.user_ids) == {user for user, _ in parted[part]}
        for index, user in enumerate(held_out.histories.user_ids.to_list()):
            target_time = min(time for own, time in parted[part] if own == user)
            own_times = held_out.histories.take(np.array([index])).timestamps
            assert all(time <= target_time for time in own_times)
            whole = histories.items_of(histories.index_of(user) or 0).tolist()
            before = held_out.histories.items_of(index).tolist()
            assert whole[: len(before) + 1] == [*before, held_out.targets[index]]


@settings(deadline=None)
@given(rows_strategy)
def test_leave_one_out_partitions_the_log_and_never_looks_ahead(rows: list[Row]) -> None:
    lengths = Counter(user for user, _, _ in rows)
    if max(lengths.values()) < 3:
        with pytest.raises(DataError, match="no user has the 3 interactions"):
            leave_one_out(log_of(rows))
        return
    split = leave_one_out(log_of(rows))
    assert_nothing_leaks(split, rows)
    assert split.test is not None
    assert set(split.test.histories.user_ids) == {u for u, count in lengths.items() if count >= 3}


@settings(deadline=None)
@given(rows_strategy, st.integers(0, 9), st.integers(0, 9))
def test_global_time_partitions_the_log_and_never_looks_ahead(
    rows: list[Row], validation_from: int, test_from: int
) -> None:
    moments = {"validation_from": validation_from, "test_from": test_from}
    times = [time for _, _, time in rows]
    is_possible = min(times) < validation_from < test_from <= max(times) and any(
        validation_from <= time < test_from for time in times
    )
    if not is_possible:
        with pytest.raises(DataError, match="give moments in order"):
            global_time(log_of(rows), **moments)
        return
    split = global_time(log_of(rows), **moments)
    assert_nothing_leaks(split, rows)
    assert split.train.timestamps.max() < validation_from
    assert split.histories.timestamps[split.parts == TEST].min() >= test_from


def held_out_of(num_users: int) -> HeldOut:
    rows = [(10 * user, 10 * user + step, step) for user in range(num_users) for step in range(3)]
    held_out = leave_one_out(log_of(rows)).test
    assert held_out is not None
    return held_out


def test_held_out_users_are_taken_with_their_targets() -> None:
    taken = held_out_of(4).take(np.array([3, 1]))
    assert taken.num_users == 2
    assert targets_of(taken) == {30: 32, 10: 12}
    assert outside(taken.histories) == {30: [30, 31], 10: [10, 11]}


def test_only_the_users_asked_for_are_kept_whatever_the_type_of_their_ids() -> None:
    held_out = held_out_of(4)
    assert targets_of(held_out.only(pl.Series([30, 10, 99]))) == {10: 12, 30: 32}
    assert targets_of(held_out.only(pl.Series(["10", "010"]))) == {10: 12}
    with pytest.raises(DataError, match="none of the 1 users asked for is held out for test"):
        held_out.only(pl.Series([99]))


def test_a_sample_of_users_is_drawn_once_each_by_its_seed() -> None:
    held_out = held_out_of(50)
    users = held_out.sample(20, seed=1).histories.user_ids.to_list()
    assert len(set(users)) == 20
    assert users == sorted(users)
    assert users == held_out.sample(20, seed=1).histories.user_ids.to_list()
    assert users != held_out.sample(20, seed=2).histories.user_ids.to_list()
    assert held_out.sample(99, seed=1).num_users == 50
    with pytest.raises(DataError, match="a sample of 0 users is none"):
        held_out.sample(0, seed=1)


@pytest.mark.parametrize("targets", [[1], [0, 1], [1, 5]])
def test_targets_must_be_items_and_one_for_each_user(targets: list[int]) -> None:
    with pytest.raises(DataError, match="targets for 2 users; give each user one dense id"):
        HeldOut("test", HISTORIES, np.array(targets, np.int32))


def test_a_target_is_asked_for_at_its_own_time() -> None:
    # 2000-01-01 is 946,684,800 in Unix time; three users with three interactions each.
    rows = [(user, item, 946_684_800 + 100 * user + item) for user in (1, 2) for item in (1, 2, 3)]
    split = leave_one_out(log_of(rows))
    assert split.test is not None
    asked_at = split.test.histories.asked_at
    assert asked_at is not None
    assert asked_at.tolist() == [103, 203]
    assert split.test.take(np.array([1])).histories.asked_at.tolist() == [203]  # type: ignore[union-attr]
    assert split.train.asked_at is None


def test_a_split_by_time_needs_times() -> None:
    vocabulary = Vocabulary(pl.Series([1, 2]))
    histories = Histories.from_lists(vocabulary, [np.array([1, 2], np.int32)])
    with pytest.raises(DataError, match="these histories have no times to split by"):
        global_time(histories)


# User 1: baskets {10, 20}, {30}, {40, 50, 40}, {10}; user 2: two baskets; user 3: three of one.
BASKETS = log_of(
    [
        *((1, item, 1) for item in (10, 20)),
        (1, 30, 2),
        *((1, item, 3) for item in (40, 50, 40)),
        (1, 10, 4),
        *((2, item, time) for time in (1, 2) for item in (20, 30)),
        *((3, item, time) for time, item in enumerate((20, 30, 60))),
    ]
)


def rows_of(held_out: HeldOut | None) -> list[tuple[int, list[int], int]]:
    """User, history and target of each row, in outside ids."""
    assert held_out is not None
    histories = held_out.histories
    return [
        (
            user,
            histories.vocabulary.decode(histories.items_of(row)).to_list(),
            histories.vocabulary.decode(held_out.targets[row : row + 1])[0],
        )
        for row, user in enumerate(histories.user_ids.to_list())
    ]


def test_last_basket_holds_out_each_users_last_two_moments_whole() -> None:
    split = last_basket(BASKETS)
    assert outside(split.train) == {1: [10, 20, 30], 2: [20, 30, 20, 30], 3: [20]}
    # Every item of a basket is a target once, from the history before the basket.
    assert rows_of(split.validation) == [
        (1, [10, 20, 30], 40),
        (1, [10, 20, 30], 50),
        (3, [20], 30),
    ]
    assert rows_of(split.test) == [(1, [10, 20, 30, 40, 50, 40], 10), (3, [20, 30], 60)]
    assert rows_of(split.successive_test()) == rows_of(split.test)
    assert "2 users hold out 4 interactions for validation and 2 for test; 1 with" in split.notes[0]


@given(rows_strategy)
def test_last_basket_is_leave_one_out_where_times_differ(rows: list[Row]) -> None:
    distinct = list({(user, time): (user, item, time) for user, item, time in rows}.values())
    log = log_of(distinct)
    try:
        expected = leave_one_out(log)
    except DataError:
        with pytest.raises(DataError, match="no user has the 3 baskets"):
            last_basket(log)
        return
    found = last_basket(log)
    assert found.parts.tolist() == expected.parts.tolist()
    assert rows_of(found.test) == rows_of(expected.test)


def test_a_user_is_drawn_and_chosen_with_all_targets() -> None:
    validation = last_basket(BASKETS).validation
    assert validation is not None
    assert [row[2] for row in rows_of(validation.only(pl.Series(["1"])))] == [40, 50]
    assert {len(rows_of(validation.sample(1, seed))) for seed in range(20)} == {1, 2}


@pytest.mark.parametrize("parts", [[0, 0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1, 2]])
def test_a_cut_basket_and_a_second_one_are_refused(parts: list[int]) -> None:
    histories = Histories.from_log(
        log_of(
            [
                (1, item, time)
                for item, time in [(10, 1), (20, 1), (30, 2), (40, 3), (50, 3), (60, 3), (10, 4)]
            ]
        )
    )
    with pytest.raises(DataError, match="cuts one of user 1 in two or takes several"):
        Split("last-basket", histories, np.array(parts, np.uint8))


def test_what_is_held_out_says_whether_items_repeat() -> None:
    for cut in (leave_one_out, last_basket, no_split):
        assert cut(BASKETS, repeats=True).repeats
        assert not cut(BASKETS).repeats
    assert global_time(BASKETS, validation_from=2, test_from=3, repeats=True).repeats
    split = leave_one_out(BASKETS, repeats=True)
    assert split.validation.repeats
    assert split.test.take(np.array([0])).repeats
