from typing import Any

import numpy as np
import polars as pl
import pytest

from segue.data.description import Description, describe
from segue.data.log import InteractionLog, read_log
from segue.data.order import Ties

DAY_S = 86_400
MONDAY = 1_700_438_400  # 2023-11-20T00:00:00Z


def log_of(users: Any, items: Any, times: Any, **others: Any) -> InteractionLog:
    columns = {"user_id": users, "item_id": items, "timestamp": times, **others}
    return read_log(pl.DataFrame(columns))


def at(times: list[Any]) -> Description:
    """Of one user with one item at these times."""
    return describe(log_of([1] * len(times), [1] * len(times), times))


def test_a_log_is_described_as_by_hand() -> None:
    # a takes x, x, y, x; b takes y and y again in one row of time; c takes z.
    log = log_of(
        ["a", "a", "a", "a", "b", "b", "c"],
        ["x", "x", "y", "x", "y", "y", "z"],
        [MONDAY + each * DAY_S for each in (0, 1, 2, 2, 5, 5, 9)],
        weight=[1.0, 2.0, 3.0, None, 5.0, 5.0, 5.0],
    )
    found = describe(log)
    assert (found.interactions, found.users, found.items) == (7, 3, 3)
    assert (found.first, found.last) == ("2023-11-20T00:00:00", "2023-11-29T00:00:00")
    assert (found.unit, found.span_days, found.resolution) == ("s", 9.0, "days")
    assert [found.history_lengths[each] for each in ("min", "50%", "max")] == [1.0, 2.0, 4.0]
    assert (found.short_histories, found.items_seen_once) == (2, 1)
    assert found.duplicates == pytest.approx(1 / 7)
    assert found.repeats_in_a_row == pytest.approx(2 / 7)
    assert found.repeats == pytest.approx(1 / 7)
    assert found.ties == Ties(num_pairs=4, num_tied=2, num_rising=0, num_falling=1)
    assert found.tied == pytest.approx(2 / 4)
    assert found.weights is not None
    assert (found.weights["min"], found.weights["max"], found.without_weight) == (1.0, 5.0, 1)
    assert found.robots == ()


def test_the_order_of_the_rows_is_no_matter_but_for_ties() -> None:
    log = log_of([2, 1, 2, 1], [5, 6, 6, 6], [4, 3, 2, 1])
    assert describe(log) == describe(log_of([1, 1, 2, 2], [6, 6, 6, 5], [1, 3, 2, 4]))


@pytest.mark.parametrize(
    ("times", "resolution"),
    [
        ([MONDAY, MONDAY + DAY_S, MONDAY + 3 * DAY_S], "days"),
        ([MONDAY + 18_000 + each * DAY_S for each in range(3)], "days"),  # New York's midnight
        ([MONDAY, MONDAY + 7_200], "hours"),
        ([MONDAY, MONDAY + 120], "minutes"),
        ([MONDAY, MONDAY + 1], "seconds"),
        ([MONDAY * 1000, MONDAY * 1000 + 1], "parts of a second"),
        ([MONDAY * 1000, MONDAY * 1000 + 60_000], "minutes"),
        (["2024-01-05", "2024-01-06"], "days"),
        ([1, 2, 3], None),
    ],
)
def test_what_times_are_whole_multiples_of_is_seen(times: list[Any], resolution: str) -> None:
    assert at(times).resolution == resolution


def test_an_order_has_no_days_and_its_ends_are_numbers() -> None:
    found = at([1, 2, 3])
    assert (found.first, found.last, found.span_days, found.unit) == ("1", "3", None, "order")


def test_two_interactions_have_no_stray() -> None:
    assert at([MONDAY, MONDAY + 5]).strays == 0


@pytest.mark.parametrize("stray", [0, 2**33])
def test_times_far_outside_the_bulk_are_counted(stray: int) -> None:
    times = [MONDAY + 60 * minute for minute in range(5_000)]
    assert at(times).strays == 0
    found = at([*times, stray])
    assert found.strays == 1
    assert found.bulk_first[:10] == "2023-11-20"
    assert found.bulk_last[:10] == "2023-11-23"


def person(user: int, size: int, seed: int) -> pl.DataFrame:
    """Somebody who does something every few minutes, from 8 to 22 o'clock."""
    rng = np.random.default_rng(seed)
    moments = np.cumsum(rng.integers(60, 600, size))
    seconds = MONDAY + moments // 50_400 * DAY_S + 28_800 + moments % 50_400
    return pl.DataFrame(
        {"user_id": user, "item_id": rng.integers(1, 50, size), "timestamp": seconds}
    )


def robots_of(*frames: pl.DataFrame) -> dict[str, tuple[Any, ...]]:
    found = describe(read_log(pl.concat(frames)))
    return {each.sign: (each.users, each.interactions, each.examples) for each in found.robots}


PERSONS = [person(user, 300, user) for user in range(1, 9)]


def test_persons_are_no_robots() -> None:
    assert robots_of(*PERSONS) == {}


def test_users_who_keep_the_pace_of_a_machine_are_found() -> None:
    robot = person(99, 150, 0).with_columns(timestamp=pl.int_range(150, dtype=pl.Int64) + MONDAY)
    ((sign, found),) = robots_of(*PERSONS, robot).items()
    assert "at most 1 s between 100 moments" in sign
    assert found == (1, 150, (99,))
    assert len(robots_of(*PERSONS, robot.head(100))) == 1
    # Everything at one moment is a basket, and a few quick moments are a person's.
    basket = robot.with_columns(timestamp=pl.lit(MONDAY, pl.Int64))
    assert robots_of(*PERSONS, basket, robot.head(99).with_columns(user_id=98)) == {}


def test_users_who_never_sleep_are_found() -> None:
    hours = pl.int_range(24, dtype=pl.Int64) * 3_600 + MONDAY
    robot = person(99, 24, 0).with_columns(timestamp=hours)
    ((sign, found),) = robots_of(*PERSONS, robot).items()
    assert sign == "22 hours of one day or more"
    assert found == (1, 24, (99,))
    assert robots_of(*PERSONS, robot.head(21)) == {}


def test_users_with_far_more_than_others_are_found_the_busiest_first() -> None:
    crowd = [person(user, 3, user) for user in range(1, 30)]
    shops = [person(user, 1_000 + user, user) for user in range(100, 104)]
    ((sign, found),) = robots_of(*crowd, *shops).items()
    assert sign == "1,000 interactions or more"
    assert found == (4, 4_406, (103, 102, 101))
    assert robots_of(*crowd, person(100, 999, 0)) == {}
