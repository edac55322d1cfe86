"""Filters: which items may be ranked, by what the catalogue says of them."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.datatypes import DataTypeClass

from segue.data.checks import shown, shown_names
from segue.data.labels import labels_of
from segue.errors import RequestError

Operator = Literal["eq", "in", "contains", "lt", "lte", "gt", "gte"]
Scalar = str | int | float | bool
Value = Scalar | Sequence[Scalar]


@dataclass(frozen=True)
class Condition:
    """One comparison of a column of the catalogue with a value.

    Attributes:
        field: The column.
        op: `eq`, `lt`, `lte`, `gt`, `gte` compare; `in` asks for one of a list of values;
            `contains` finds a piece of text, or one whole entry of a list, whatever its case.
        value: Of the column's kind; dates as ISO 8601 text; a list for `in`.
    """

    field: str
    op: Operator
    value: Value


@dataclass(frozen=True)
class Filter:
    """Holds where all of `all_of`, any of `any_of` (if there are some) and none of `none_of` do."""

    all_of: Sequence[Condition] = ()
    any_of: Sequence[Condition] = ()
    none_of: Sequence[Condition] = ()


class ItemFilters:
    """Evaluates filters over a catalogue.

    Where the catalogue has no value, no condition holds.
    """

    def __init__(self, catalogue: pl.DataFrame) -> None:
        """Take the catalogue, one row per dense id 1..num_items in that order."""
        self._catalogue = catalogue

    def allowed(self, wanted: Filter) -> npt.NDArray[np.int32]:
        """The dense ids for which the filter holds, ascending.

        Raises:
            RequestError: A condition names no column, or has a value that does not fit it.
        """
        masks = [self._conditions(wanted.all_of), ~self._any(wanted.none_of)]
        if wanted.any_of:
            masks.append(self._any(wanted.any_of))
        found = self._catalogue.select(pl.all_horizontal(masks).alias("is_allowed"))["is_allowed"]
        return (np.flatnonzero(found.to_numpy()) + 1).astype(np.int32)

    def entries(self, field: str) -> list[str]:
        """The different values of a column as text, entries of a list one by one, in order."""
        column = labels_of(self._catalogue[field]).explode().drop_nulls()
        return column.filter(column.str.len_bytes() > 0).unique().sort().to_list()

    def _conditions(self, conditions: Sequence[Condition]) -> pl.Expr:
        return pl.all_horizontal(self._everywhere(True), *map(self._holds, conditions))

    def _any(self, conditions: Sequence[Condition]) -> pl.Expr:
        return pl.any_horizontal(self._everywhere(False), *map(self._holds, conditions))

    def _everywhere(self, value: bool) -> pl.Expr:
        return pl.repeat(value, self._catalogue.height, dtype=pl.Boolean)

    def _holds(self, condition: Condition) -> pl.Expr:
        dtype = self._catalogue.schema.get(condition.field)
        if dtype is None:
            raise RequestError(
                f"a filter names the field {shown(condition.field)}; the items have "
                f"{shown_names(self._catalogue.columns)}"
            )
        if condition.op not in get_args(Operator):
            raise RequestError(f"{shown(condition.op)} is no operator of a filter")
        column = pl.col(condition.field)
        if condition.op == "contains":
            return self._contains(column, dtype, condition).fill_null(False)
        if condition.op == "in":
            if isinstance(condition.value, Scalar):
                raise _unfit(condition, "a list of values")
            values = [_value(one, dtype, condition) for one in condition.value]
            return _is_one_of(column, dtype, values).fill_null(False)
        if isinstance(dtype, pl.Boolean) and condition.op != "eq":
            raise _unfit(condition, "eq or in, as its values are true and false")
        if not isinstance(condition.value, Scalar):
            raise _unfit(condition, "one value")
        value = pl.lit(
            _value(condition.value, dtype, condition),
            dtype=_number_type(condition.value) if dtype.is_numeric() else None,
        )
        comparisons = {
            "eq": column.eq,
            "lt": column.lt,
            "lte": column.le,
            "gt": column.gt,
            "gte": column.ge,
        }
        is_number = column.is_not_nan() if dtype.is_float() else pl.lit(True)
        return (comparisons[condition.op](value) & is_number).fill_null(False)

    def _contains(self, column: pl.Expr, dtype: pl.DataType, condition: Condition) -> pl.Expr:
        if isinstance(dtype, pl.List):
            if not isinstance(condition.value, Scalar):
                raise _unfit(condition, "one value")
            wanted = _value(condition.value, dtype.inner, condition)
            if isinstance(wanted, str):
                folded = column.list.eval(pl.element().cast(pl.String).str.to_lowercase())
                return folded.list.contains(wanted.lower())
            return column.list.contains(wanted)
        if not isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
            raise _unfit(condition, "text or a list; compare it with eq, in, lt, lte, gt or gte")
        if not isinstance(condition.value, str):
            raise _unfit(condition, "text")
        text = column.cast(pl.String).str.to_lowercase()
        return text.str.contains(condition.value.lower(), literal=True)


def _value(
    value: Scalar, dtype: pl.DataType | DataTypeClass, condition: Condition
) -> Scalar | dt.date | dt.time:
    """The value as the column holds it.

    Raises:
        RequestError: The column holds nothing of that kind.
    """
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        if isinstance(value, str):
            return value
        raise _unfit(condition, "text")
    if isinstance(dtype, pl.Boolean):
        if isinstance(value, bool):
            return value
        raise _unfit(condition, "true or false")
    if isinstance(dtype, pl.Date | pl.Datetime):
        return _moment(value, dtype, condition)
    if isinstance(dtype, pl.List):
        raise _unfit(condition, "contains, as it holds lists")
    if not dtype.is_numeric():
        raise _unfit(condition, f"no filter: it holds {dtype}")
    # Beyond 64 bits, no column has a value to compare with.
    if isinstance(value, bool | str) or not abs(value) < 2**63:
        raise _unfit(condition, "a number of at most 64 bits")
    return value


def _moment(value: Scalar, dtype: pl.Date | pl.Datetime, condition: Condition) -> dt.date:
    """An ISO 8601 date or datetime, UTC where it says no zone."""
    try:
        if not isinstance(value, str):
            raise ValueError
        if isinstance(dtype, pl.Date):
            return dt.date.fromisoformat(value)
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        raise _unfit(condition, "a date (ISO 8601)") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return moment if dtype.time_zone else moment.astimezone(dt.UTC).replace(tzinfo=None)


def _number_type(value: object) -> pl.DataType:
    return pl.Float64() if isinstance(value, float) else pl.Int64()


def _is_one_of(column: pl.Expr, dtype: pl.DataType, values: Sequence[Any]) -> pl.Expr:
    if dtype.is_integer():
        # Polars compares numbers of one type only, and no whole number is a fraction.
        whole = [int(value) for value in values if value == int(value)]
        return column.cast(pl.Int64, strict=False).is_in(whole)
    if dtype.is_numeric():
        return column.cast(pl.Float64).is_in([float(value) for value in values])
    return (column.cast(pl.String) if _is_text(dtype) else column).is_in(list(values))


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _unfit(condition: Condition, wanted: str) -> RequestError:
    return RequestError(
        f"the filter {condition.op} {shown(condition.value)} does not fit the field "
        f"{condition.field!r}, which takes {wanted}"
    )
