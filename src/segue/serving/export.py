"""The service's events as the log that the next model is trained on."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.artifact import Run
from segue.data.histories import Histories
from segue.data.ids import compared_as
from segue.data.roles import ITEM, TIME, USER, WEIGHT
from segue.errors import DataError
from segue.serving.stores import HistoryStore, Snapshot, StoredEvent
from segue.serving.times import Clock


def exported(run: Run, store: HistoryStore, *, is_whole: bool) -> pl.DataFrame:
    """Stored events as a log: user_id, item_id, timestamp, weight, in the order of arrival.

    Ids are of the run's types if all of them can be, else text.

    Args:
        run: Whose log the events go on from.
        store: Where they are.
        is_whole: Whether the run's own interactions come before them, but those of erased users
            and those that the events repeat.

    Raises:
        DataError: There is nothing to export, or the run's own interactions have no times.
        StoreError: The database cannot be read.
    """
    histories = run.split.histories if run.split else None
    clock = Clock.of(histories)
    with store.snapshot() as moment:
        frames = [_frame(rows, clock) for rows in moment.everything()]
        if is_whole and histories is not None and histories.num_interactions:
            frames.insert(0, _before(histories, clock, moment))
    frames = [frame for frame in frames if frame.height]
    if not frames:
        raise DataError("there are no events yet; send some to POST /v1/events")
    log = pl.concat(frames)
    if is_whole:
        log = log.unique([USER.name, ITEM.name, TIME.name], keep="first", maintain_order=True)
    log = log.with_columns(
        _own_type(log[ITEM.name], run.vocabulary.ids.dtype),
        *([_own_type(log[USER.name], histories.user_ids.dtype)] if histories else []),
    )
    return log.drop(WEIGHT.name) if log[WEIGHT.name].is_null().all() else log


def _before(histories: Histories, clock: Clock, moment: Snapshot) -> pl.DataFrame:
    """The run's own interactions, but those of erased users."""
    if histories.timestamps is None:
        raise DataError(
            "the run's own interactions have no times and cannot stand before the events; "
            "export without --whole"
        )
    users = histories.user_ids.cast(pl.String)
    is_erased = pl.Series(moment.has_erased(users.to_list()))
    before = pl.DataFrame(
        {
            USER.name: users.gather(histories.users),
            ITEM.name: histories.vocabulary.decode(histories.item_ids).cast(pl.String),
            TIME.name: clock.column(clock.stored_all(histories.timestamps)),
            WEIGHT.name: _weights(histories.weights, histories.num_interactions),
        }
    )
    return before.filter(~is_erased.gather(histories.users))


def _frame(rows: Sequence[StoredEvent], clock: Clock) -> pl.DataFrame:
    return pl.DataFrame(
        {
            USER.name: pl.Series([row.user_id for row in rows], dtype=pl.String),
            ITEM.name: pl.Series([row.item_id for row in rows], dtype=pl.String),
            TIME.name: clock.column([row.timestamp for row in rows]),
            WEIGHT.name: pl.Series([row.weight for row in rows], dtype=pl.Float64),
        }
    )


def _weights(weights: npt.NDArray[np.float32] | None, size: int) -> pl.Series:
    if weights is None:
        return pl.repeat(None, size, dtype=pl.Float64, eager=True)
    return pl.Series(weights, dtype=pl.Float64).fill_nan(None)


def _own_type(ids: pl.Series, dtype: pl.DataType) -> pl.Series:
    """The ids as `dtype`, unless some are none of that type."""
    own = compared_as(ids, dtype)
    return ids if own.has_nulls() else own.alias(ids.name)
