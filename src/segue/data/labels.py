"""Labels of items: a text that may hold several, between bars, as MovieLens writes genres."""

from typing import TypeVar

import polars as pl

SEPARATOR = "|"


Values = TypeVar("Values", pl.Series, pl.Expr)


def labels_of(values: Values) -> Values:
    """The labels of each value, a list of text; null where there is none.

    Args:
        values: Text, or what becomes it.
    """
    labels: Values = values.cast(pl.String).str.split(SEPARATOR)
    return labels


def holds_several(values: pl.Series) -> bool:
    """Whether any of these texts holds more than one label."""
    return bool(values.str.contains(SEPARATOR, literal=True).any())
