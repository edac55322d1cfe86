import pytest

from segue.data.roles import ITEM, TIME, TITLE, USER, WEIGHT, Role, column_notes, find_columns
from segue.errors import DataError

ALL = dict.fromkeys((USER, ITEM, TIME, WEIGHT))


@pytest.mark.parametrize(
    ("role", "alias"),
    [
        *((USER, name) for name in ("userId", "UserID", "USER", "uid", "user", "customer_id")),
        *((ITEM, name) for name in ("movieId", "MovieID", "item", "product_id", "asin", "itemId")),
        *((TIME, name) for name in ("datetime", "time", "ts", "date", "unixReviewTime")),
        *((WEIGHT, name) for name in ("rating", "Rating", "score", "Weight")),
        *((TITLE, name) for name in ("name", "Title", "movie_title")),
    ],
)
def test_usual_aliases_are_recognised_whatever_their_case(role: Role, alias: str) -> None:
    assert find_columns(["x", alias, "y"], {role: None}, "log") == {role: alias}


def test_a_canonical_name_beats_an_alias() -> None:
    names = ["uid", "user_id", "item_id", "movieId", "date", "timestamp"]
    assert find_columns(names, ALL, "log") == {
        USER: "user_id",
        ITEM: "item_id",
        TIME: "timestamp",
    }


def test_an_explicit_column_beats_a_canonical_name() -> None:
    names = ["user_id", "item_id", "timestamp", "position"]
    assert find_columns(names, {**ALL, TIME: "position"}, "log")[TIME] == "position"


def test_an_explicit_column_settles_a_dispute_between_aliases() -> None:
    names = ["user", "uid", "item_id", "timestamp"]
    assert find_columns(names, {**ALL, USER: "uid"}, "log")[USER] == "uid"


def test_a_column_chosen_for_one_role_is_not_an_alias_for_another() -> None:
    names = ["user_id", "item_id", "rating"]
    assert WEIGHT not in find_columns(names, {**ALL, TIME: "rating"}, "log")


def test_two_aliases_for_one_role_are_refused_with_both_and_the_option() -> None:
    with pytest.raises(
        DataError, match=r"'user', 'uid' could each be user_id.*--user-col"
    ) as error:
        find_columns(["user", "uid", "item_id", "timestamp"], ALL, "log.csv")
    assert "user_col=" in str(error.value)


def test_a_missing_column_is_told_with_those_there_are() -> None:
    with pytest.raises(
        DataError, match=r"log\.csv has no column for item_id; its columns are 'user_id', 'when'"
    ) as error:
        find_columns(["user_id", "when"], ALL, "log.csv")
    assert "--item-col" in str(error.value)


def test_a_misnamed_column_is_told_with_those_there_are() -> None:
    with pytest.raises(DataError, match=r"no column 'usr' for user_id; its columns are 'user_id'"):
        find_columns(["user_id", "item_id", "ts"], {**ALL, USER: "usr"}, "log.csv")


def test_one_column_cannot_play_two_roles() -> None:
    with pytest.raises(DataError, match="'id' cannot be both user_id and item_id"):
        find_columns(["id", "ts"], {**ALL, USER: "id", ITEM: "id"}, "log.csv")


def test_notes_tell_only_of_columns_with_other_names() -> None:
    notes = column_notes({USER: "user_id", ITEM: "movieId"})
    assert notes == ["item_id is read from the column 'movieId'"]


def test_a_table_of_very_many_columns_still_gets_one_bounded_line() -> None:
    with pytest.raises(DataError) as error:
        find_columns([f"c{i}\n" for i in range(1000)], ALL, "log.csv")
    assert "and 960 more" in str(error.value)
    assert "\n" not in str(error.value)


def test_two_aliases_for_an_optional_role_are_refused_only_where_it_is_needed() -> None:
    names = ["rating", "score"]
    assert find_columns(names, {WEIGHT: None}, "log") == {}
    with pytest.raises(DataError, match="'rating', 'score' could each be weight"):
        find_columns(names, {WEIGHT: None}, "log", needed=[WEIGHT])
    assert find_columns(names, {WEIGHT: "score"}, "log") == {WEIGHT: "score"}
