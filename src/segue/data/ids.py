"""Outside ids: integers or text, and how they are compared and found.

Ids are compared by text: `7` and `"7"` are the same id, `"007"` is another.
"""

from contextlib import suppress
from decimal import Decimal
from uuid import UUID

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.checks import refuse_where
from segue.errors import DataError

# Above it a float no longer tells neighbouring integers apart.
MAX_EXACT_FLOAT = 2**53
INTEGER_TEXT = r"^(?:0|-?[1-9][0-9]*)$"
# Null is the type of a series without values.
TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum, pl.Null)
# The 16 bytes of a UUID, as hexadecimal digits, and its canonical text.
UUID_DIGITS = "^(.{8})(.{4})(.{4})(.{4})(.{12})$"
UUID_TEXT = "${1}-${2}-${3}-${4}-${5}"
UUID_BYTES = 16
FLOAT_ID_TEXT = r"(?i)^(?:-?(?:0|[1-9][0-9]*)(?:\.0*)?|nan|-?inf(?:inity)?)$"


def as_ids(values: pl.Series, where: str, *, is_untyped: bool = False) -> pl.Series:
    """The ids as Int64 or String, in the order given.

    Whole floats and decimals are integers; categories are text, and so are UUIDs, in their
    canonical form, and bytes that are UTF-8. Where an integer is beyond 64 signed bits, as unsigned
    hashes are, all are text. Text stays text, unless `is_untyped`: then it comes from a format
    without types, and is integers if every value is written as one (`"007"` is not).
    `values.name` and `where` are for messages.

    Raises:
        DataError: Null, empty, NaN, infinite or fractional ids, or another type.
    """
    refuse_where(values.is_null(), values, where, "is null", "drop these rows or fill them in")
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    elif values.dtype == pl.Binary:
        values = _from_bytes(values, where)
    elif values.dtype == pl.Object and all(isinstance(value, UUID) for value in values):
        values = pl.Series(values.name, [str(value) for value in values])
    if values.dtype == pl.String:
        is_empty = values.str.len_bytes() == 0
        refuse_where(is_empty, values, where, "is empty", "drop these rows or fill them in")
        return _from_untyped(values, where) if is_untyped else values
    if values.dtype.is_float():
        return _from_floats(values, where)
    if values.dtype.is_decimal():
        return _from_decimals(values, where)
    if values.dtype.is_integer():
        return _from_integers(values)
    raise DataError(f"{where}: {values.name} is of type {values.dtype}; ids are integers or text")


def are_long_integers(ids: pl.Series) -> bool:
    """Whether ids are text for the reason that some are integers beyond 64 signed bits."""
    known = ids.drop_nulls() if ids.has_nulls() else ids
    if known.dtype != pl.String or not known.head(1).str.contains(INTEGER_TEXT).any():
        return False
    is_long = known.cast(pl.Int64, strict=False).is_null()
    return bool(is_long.any() and known.str.contains(INTEGER_TEXT).all())


def id_text(one: object) -> str:
    """A single id as text, by which ids are compared: a whole float or decimal as an integer."""
    if isinstance(one, Decimal):
        is_whole = one.is_finite() and one == one.to_integral_value()
    elif isinstance(one, float | np.floating):
        is_whole = abs(float(one)) < MAX_EXACT_FLOAT and float(one).is_integer()
    else:
        return str(one)
    return str(int(one)) if is_whole else str(one)


def compared_as(ids: pl.Series, dtype: pl.DataType) -> pl.Series:
    """`ids` as `dtype` (Int64 or String), by text; null where `dtype` cannot hold that text.

    Raises:
        DataError: `ids` are neither integers nor text.
    """
    if ids.dtype == dtype:
        return ids
    if not (ids.dtype.is_integer() or isinstance(ids.dtype, TEXT_TYPES)):
        raise DataError(f"ids of type {ids.dtype} cannot be compared; give integers or text")
    text = ids.cast(pl.String)
    if dtype == pl.String:
        return text
    numbers = text.cast(pl.Int64, strict=False)
    is_same = numbers.cast(pl.String) == text
    return numbers.to_frame("id").select(pl.when(is_same).then("id"))["id"]


class IdLookup:
    """Where ids stand in a series of different ids."""

    def __init__(self, ids: pl.Series) -> None:
        order = ids.arg_sort()
        self._sorted = ids.gather(order)
        self._order = order.to_numpy().astype(np.int64)

    def find(self, ids: pl.Series) -> npt.NDArray[np.int64]:
        """The place of each id, int64[len(ids)], from 0; -1 where it is not there."""
        if self._sorted.is_empty():
            return np.full(len(ids), -1, np.int64)
        wanted = compared_as(ids, self._sorted.dtype)
        nearest = self._sorted.search_sorted(wanted).clip(upper_bound=len(self._sorted) - 1)
        is_found = (self._sorted.gather(nearest) == wanted).fill_null(False)
        return np.where(is_found.to_numpy(), self._order[nearest.to_numpy()], -1)


def _from_integers(values: pl.Series) -> pl.Series:
    integers = values.cast(pl.Int64, strict=False)
    return values.cast(pl.String) if integers.has_nulls() else integers


def _from_decimals(values: pl.Series, where: str) -> pl.Series:
    text = values.cast(pl.String).str.replace(r"\.0*$", "")
    is_fraction = text.str.contains(".", literal=True)
    refuse_where(is_fraction, values, where, "is not whole", "give ids as integers or text")
    return _from_integers(text)


def _from_bytes(values: pl.Series, where: str) -> pl.Series:
    with suppress(pl.exceptions.ComputeError):
        return values.cast(pl.String)
    is_other = values.bin.size() != UUID_BYTES
    fault = f"is neither UTF-8 text nor a UUID of {UUID_BYTES} bytes"
    refuse_where(is_other, values, where, fault, "give ids as integers or text")
    return values.bin.encode("hex").str.replace(UUID_DIGITS, UUID_TEXT)


def _from_floats(values: pl.Series, where: str) -> pl.Series:
    remedy = "give ids as integers or text"
    refuse_where(~values.is_finite(), values, where, "is NaN or infinite", remedy)
    refuse_where(values != values.floor(), values, where, "is not whole", remedy)
    is_inexact = values.abs() >= MAX_EXACT_FLOAT
    refuse_where(is_inexact, values, where, "is too large for a float to be exact", remedy)
    return values.cast(pl.Int64)


def _from_untyped(text: pl.Series, where: str) -> pl.Series:
    integers = text.cast(pl.Int64, strict=False)
    if integers.cast(pl.String).eq_missing(text).all():
        return integers
    if text.str.contains(INTEGER_TEXT).all():
        return text  # beyond 64 bits
    if text.str.contains(FLOAT_ID_TEXT).all():
        return _from_floats(text.cast(pl.Float64), where)
    return text
