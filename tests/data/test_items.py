from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from segue.data.items import Catalogue, read_items
from segue.data.log import read_log
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError


def test_movies_dat_has_ids_titles_and_genres(tmp_path: Path) -> None:
    path = tmp_path / "movies.dat"
    path.write_bytes(
        "1::Toy Story (1995)::Animation|Comedy\n73::Misérables::Drama\n".encode("latin1")
    )
    frame = read_items(path).frame
    assert frame.columns == ["item_id", "title", "genres"]
    assert frame.rows() == [
        (1, "Toy Story (1995)", ["Animation", "Comedy"]),
        (73, "Misérables", ["Drama"]),
    ]


def test_the_item_file_of_movielens_100k_is_read_with_its_genres(tmp_path: Path) -> None:
    flags = ["0"] * 19
    flags[5] = "1"
    path = tmp_path / "u.item"
    path.write_text("|".join(["1", "Toy Story (1995)", "01-Jan-1995", "", "http://x", *flags]))
    frame = read_items(path).frame
    assert frame.columns[:2] == ["item_id", "title"]
    assert frame.row(0, named=True)["Comedy"] == "1"
    assert frame.row(0)[:3] == (1, "Toy Story (1995)", "01-Jan-1995")


def test_a_recbole_item_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ml-100k.item"
    path.write_text("item_id:token\tmovie_title:token_seq\tclass:token_seq\n1\tToy Story\tComedy\n")
    frame = read_items(path).frame
    assert frame.columns == ["item_id", "title", "class"]
    assert frame.rows() == [(1, "Toy Story", ["Comedy"])]


def test_id_and_title_come_first_and_other_columns_keep_their_types() -> None:
    source = pd.DataFrame({"year": [1995], "name": ["Toy Story"], "movieId": [1]})
    frame = read_items(source).frame
    assert frame.columns == ["item_id", "title", "year"]
    assert frame.schema["year"] == pl.Int64


def test_a_catalogue_needs_no_title() -> None:
    assert read_items(pl.DataFrame({"item": [1], "price": [2.5]})).frame.columns == [
        "item_id",
        "price",
    ]


def test_explicit_columns_win() -> None:
    source = pl.DataFrame({"sku": ["a"], "label": ["A"], "asin": ["b"]})
    frame = read_items(source, item_col="asin", title_col="label").frame
    assert frame.rows(named=True) == [{"item_id": "b", "title": "A", "sku": "a"}]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {"item_id": [1, 2, 1]},
            {"refuse_duplicates": True},
            "item_id has a second row in 1 of 3 rows, first 1 in row 3",
        ),
        ({"item_id": [1, None]}, {}, "item_id is null in 1 of 2 rows"),
        ({"item_id": []}, {}, "holds no items"),
        (
            {"item_id": [1], "name": [["a"]]},
            {"title_col": "name"},
            "title is of type List.*--items-title-col",
        ),
        ({"x": [1]}, {}, "has no column for item_id; its columns are 'x'"),
        ({"sku": ["a"], "isbn": ["b"]}, {}, "'sku', 'isbn' could each be item_id.*--items-id-col"),
    ],
)
def test_a_bad_catalogue_is_refused(
    columns: dict[str, list[object]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_items(pl.DataFrame(columns), **options)


def test_aligned_rows_follow_the_vocabulary_with_nulls_for_unknown_items() -> None:
    catalogue = Catalogue(pl.DataFrame({"item_id": [30, 10, 99], "title": ["C", "A", "Z"]}))
    vocabulary = Vocabulary(pl.Series([20, 30, 10]))
    assert catalogue.aligned(vocabulary).rows() == [(20, None), (30, "C"), (10, "A")]


def test_a_catalogue_of_text_serves_a_vocabulary_of_integers() -> None:
    catalogue = Catalogue(pl.DataFrame({"item_id": ["007", "8"], "title": ["Bond", "Eight"]}))
    aligned = catalogue.aligned(Vocabulary(pl.Series([7, 8])))
    assert aligned.rows() == [(7, None), (8, "Eight")]
    assert aligned.schema["item_id"] == pl.Int64


@pytest.mark.parametrize("columns", [{"sku": ["a"]}, {"item": ["a"]}, {"anything": ["a"]}])
def test_the_logs_own_item_column_is_tried_first(columns: dict[str, list[str]]) -> None:
    (name,) = columns
    log = read_log(
        pl.DataFrame({"user_id": [1], **columns, "timestamp": [1]}), item_col=name
    ).k_core(1)
    source = pl.DataFrame({"product_id": [8], **columns, "item_id": [9]})
    items = read_items(source, log=log)
    assert items.frame["item_id"].to_list() == ["a"]
    assert items.frame.columns == ["item_id", "product_id"]
    assert items.notes == (
        f"items: item_id is read from the column {name!r}",
        "items: the column 'item_id' is left out: item_id is read from another",
    )


def test_a_chosen_column_beats_the_logs_own() -> None:
    log = read_log(pl.DataFrame({"user_id": [1], "sku": ["a"], "timestamp": [1]}))
    source = pl.DataFrame({"sku": ["a"], "code": ["b"]})
    assert read_items(source, item_col="code", log=log).frame["item_id"].to_list() == ["b"]


def test_a_title_that_is_not_chosen_is_left_out_with_a_note() -> None:
    source = pl.DataFrame({"item_id": [1], "title": ["a"], "original": ["b"]})
    items = read_items(source, title_col="original")
    assert items.frame.rows(named=True) == [{"item_id": 1, "title": "b"}]
    assert "items: the column 'title' is left out: title is read from another" in items.notes


def test_a_title_that_two_columns_could_be_is_left_out_with_a_note() -> None:
    items = read_items(pl.DataFrame({"item_id": [1], "name": ["a"], "item_name": ["b"]}))
    assert items.frame.columns == ["item_id", "name", "item_name"]
    (note,) = items.notes
    assert "title is left out: 'name', 'item_name' could each be title" in note
    assert "--items-title-col" in note


def test_titles_that_are_no_text_are_left_out_with_a_note() -> None:
    items = read_items(pl.DataFrame({"item_id": [1], "title": [["a"]], "year": [1999]}))
    assert items.frame.columns == ["item_id", "year"]
    assert "title is left out, as no option asks for it" in items.notes[-1]


def test_of_an_items_rows_the_first_is_kept_and_the_others_are_counted() -> None:
    tags = [["x"], ["y"], ["x"], ["x"], ["z"], []]
    source = pl.DataFrame({"item_id": ["b", "a", "b", "b", "b", "a"], "tags": tags})
    items = read_items(source)
    assert items.frame.rows() == [("b", ["x"]), ("a", ["y"])]
    equal, different = items.notes
    assert equal == "items: dropped 2 of 6 rows that equal another"
    assert "dropped 2 of 6 rows of items whose first row is another, such as 'b'" in different
    assert "--refuse-duplicate-items" in different


def test_equal_rows_alone_are_one_row() -> None:
    source = pl.DataFrame({"item_id": [1.0, 1.0, 2.0], "title": ["a", "a", None]})
    items = read_items(source)
    assert items.frame.rows() == [(1, "a"), (2, None)]
    assert items.notes == ("items: dropped 1 of 3 rows that equal another",)


def test_a_bar_in_text_makes_no_list() -> None:
    source = pl.DataFrame({"item_id": [1, 2], "title": ["Face|Off", "Heat"], "kind": ["a|b", "a"]})
    assert read_items(source).frame.schema == {
        "item_id": pl.Int64,
        "title": pl.String,
        "kind": pl.String,
    }


def test_lists_are_those_that_an_option_names_or_that_are_lists_already(tmp_path: Path) -> None:
    columns = {"item_id": [1, 2, 3, 4], "kind": ["a | b", "a", "||", None]}
    source = pl.DataFrame({**columns, "tags": [["x|y"], [], None, ["z"]]})
    items = read_items(source, list_cols=["kind", "tags"]).frame
    assert items["kind"].to_list() == [["a", "b"], ["a"], [], None]
    assert items["tags"].to_list() == [["x|y"], [], None, ["z"]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("genre", "no column 'genre' to read as lists; its columns are .*'kind'.*--list-col"),
        ("year", "year is of type Int64; lists are read from text"),
    ],
)
def test_a_column_that_cannot_be_lists_is_refused(name: str, message: str) -> None:
    source = pl.DataFrame({"item_id": [1], "kind": ["a|b"], "year": [1999]})
    with pytest.raises(DataError, match=message):
        read_items(source, list_cols=[name])
