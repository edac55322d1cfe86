import polars as pl

from segue.data.labels import labels_of, split_labels


def test_the_labels_of_text_are_the_text_and_of_lists_their_entries() -> None:
    assert labels_of(pl.Series("a", ["x|y", None, ""])).to_list() == [["x|y"], None, [""]]
    assert labels_of(pl.Series("a", [["x", "y"], None, []])).to_list() == [["x", "y"], None, []]
    assert labels_of(pl.Series("a", [7, None])).to_list() == [["7"], None]
    assert labels_of(pl.Series("a", [[7], None])).to_list() == [["7"], None]
    assert labels_of(pl.Series("a", ["x"])).name == "a"


def test_text_is_split_without_blanks_and_empty_labels() -> None:
    text = pl.Series("a", [" x | y ", "||", None, "x"])
    assert split_labels(text, "|").to_list() == [["x", "y"], [], None, ["x"]]
