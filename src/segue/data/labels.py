"""Labels of items: columns of lists, such as genres, and text that is written as one."""

import polars as pl

BAR, BLANK = "|", " "


def split_labels(text: pl.Series, separator: str) -> pl.Series:
    """Text that holds several labels as lists; without empty labels, null where it is null."""
    label = pl.element()
    stripped = text.str.split(separator).list.eval(label.str.strip_chars())
    return stripped.list.eval(label.filter(label.str.len_bytes() > 0))


def labels_of(values: pl.Series) -> pl.Series:
    """The labels of each value, lists of text: a list's entries, or else the value; null for null.

    What is text stays whole, whatever it contains: only its reader can know that it is a list.
    """
    if isinstance(values.dtype, pl.List):
        return values.cast(pl.List(pl.String))
    text = values.cast(pl.String)
    lists = text.to_frame().select(pl.when(pl.all().is_not_null()).then(pl.concat_list(pl.all())))
    return lists.to_series().alias(values.name)
