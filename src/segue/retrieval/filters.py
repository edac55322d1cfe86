"""Filters: which items may be ranked, by what the catalogue says of them."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.checks import shown, shown_names
from segue.data.labels import labels_of
from segue.errors import RequestError

Operator = Literal["eq", "in", "contains", "lt", "lte", "gt", "gte"]
Scalar = str | int | float | bool
Value = Scalar | Sequence[Scalar]
COMPARABLE = (pl.Boolean, pl.Date, pl.Datetime)


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
        match condition.op:
            case "contains":
                return _contains(column, dtype, condition).fill_null(False)
            case "in":
                return _is_in(column, dtype, condition).fill_null(False)
        return _compares(column, dtype, condition).fill_null(False)


def _compares(column: pl.Expr, dtype: pl.DataType, condition: Condition) -> pl.Expr:
    if isinstance(dtype, pl.Boolean) and condition.op != "eq":
        raise _unfit(condition, "eq or in, as its values are true and false")
    if not isinstance(condition.value, Scalar):
        raise _unfit(condition, "one value")
    value = _value(condition.value, dtype, condition)
    if condition.op == "eq":
        return _is_one_of(column, dtype, [value])
    if isinstance(dtype, pl.Enum) and value not in dtype.categories:
        raise _unfit(condition, f"one of {shown_names(dtype.categories.to_list())}")
    literal = pl.lit(value, dtype=_number_type(value) if dtype.is_numeric() else None)
    column = _in_utc(column, dtype)
    comparisons = {"lt": column.lt, "lte": column.le, "gt": column.gt, "gte": column.ge}
    holds = comparisons[condition.op](literal)
    return holds & column.is_not_nan() if dtype.is_float() else holds


def _is_in(column: pl.Expr, dtype: pl.DataType, condition: Condition) -> pl.Expr:
    given = condition.value
    if isinstance(given, Scalar) or not all(isinstance(one, Scalar) for one in given):
        raise _unfit(condition, "a list of values")
    _check_comparable(dtype, condition)
    values = [_value(one, dtype, condition) for one in given]
    return _is_one_of(column, dtype, values)


def _contains(column: pl.Expr, dtype: pl.DataType, condition: Condition) -> pl.Expr:
    if isinstance(dtype, pl.List):
        if not isinstance(condition.value, Scalar):
            raise _unfit(condition, "one value")
        inner: Any = dtype.inner
        wanted = _value(condition.value, inner, condition)
        entry = pl.element()
        if isinstance(wanted, str) and _is_text(inner):
            is_wanted = entry.cast(pl.String).str.to_lowercase() == wanted.lower()
        else:
            is_wanted = _is_one_of(entry, inner, [wanted])
        return column.list.eval(is_wanted).list.any()
    if not _is_text(dtype):
        raise _unfit(condition, "text or a list; compare it with eq, in, lt, lte, gt or gte")
    if not isinstance(condition.value, str):
        raise _unfit(condition, "text")
    text = column.cast(pl.String).str.to_lowercase()
    return text.str.contains(condition.value.lower(), literal=True)


def _value(value: Scalar, dtype: pl.DataType, condition: Condition) -> Scalar | dt.date:
    """The value as the column is compared with it.

    Raises:
        RequestError: The column holds nothing of that kind.
    """
    _check_comparable(dtype, condition)
    if _is_text(dtype):
        if isinstance(value, str):
            return value
        raise _unfit(condition, "text")
    if isinstance(dtype, pl.Boolean):
        if isinstance(value, bool):
            return value
        raise _unfit(condition, "true or false")
    if isinstance(dtype, pl.Date | pl.Datetime):
        return _moment(value, dtype, condition)
    # Beyond 64 bits, no column has a value to compare with.
    if isinstance(value, bool | str) or not abs(value) < 2**63:
        raise _unfit(condition, "a number of at most 64 bits")
    return value


def _check_comparable(dtype: pl.DataType, condition: Condition) -> None:
    """Raises: RequestError: No value of the column can be compared."""
    if isinstance(dtype, pl.List):
        raise _unfit(condition, "contains, as it holds lists")
    if not (_is_text(dtype) or dtype.is_numeric() or isinstance(dtype, COMPARABLE)):
        raise _unfit(condition, f"no filter: it holds {dtype}")


def _moment(value: Scalar, dtype: pl.Date | pl.Datetime, condition: Condition) -> dt.date:
    """An ISO 8601 date, or a datetime in UTC without a zone, UTC where it says none."""
    try:
        if not isinstance(value, str):
            raise ValueError
        if isinstance(dtype, pl.Date):
            return dt.date.fromisoformat(value)
        moment = dt.datetime.fromisoformat(value)
        return moment.astimezone(dt.UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        raise _unfit(condition, "a date (ISO 8601) of the years 1 to 9999 in UTC") from None


def _number_type(value: object) -> pl.DataType:
    return pl.Float64() if isinstance(value, float) else pl.Int64()


def _in_utc(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Datetimes as values are: microseconds in UTC, without a zone; all else as it is."""
    if not isinstance(dtype, pl.Datetime):
        return column
    if dtype.time_zone is not None:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    # Nanoseconds, which values lack, would overflow after 2262.
    return column.cast(pl.Datetime("us"), strict=False)


def _is_one_of(column: pl.Expr, dtype: pl.DataType, values: Sequence[Any]) -> pl.Expr:
    """Where the column has one of these, of which `_value` made each."""
    if dtype.is_integer():
        # Polars compares numbers of one type only, and no whole number is a fraction.
        whole = [int(value) for value in values if value == int(value)]
        return column.cast(pl.Int64, strict=False).is_in(whole)
    if dtype.is_numeric():
        return column.cast(pl.Float64).is_in([float(value) for value in values])
    return (column.cast(pl.String) if _is_text(dtype) else _in_utc(column, dtype)).is_in(
        list(values)
    )


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _unfit(condition: Condition, wanted: str) -> RequestError:
    return RequestError(
        f"the filter {condition.op} {shown(condition.value)} does not fit the field "
        f"{condition.field!r}, which takes {wanted}"
    )
