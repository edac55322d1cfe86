"""Recommendations for millions of users, from Parquet to Parquet in bounded memory.

The users are cut into parts by a hash of their ids, each small enough to be held whole. The answers
go into files next to the target, which are joined and moved into place at the end.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.checks import BadRowsError, shown_names
from segue.data.directories import data_files
from segue.data.histories import Histories
from segue.data.ids import IdLookup
from segue.data.log import InteractionLog, read_log
from segue.data.readers import PARQUET_SUFFIXES, open_table
from segue.data.roles import ITEM, TIME, USER, find_columns
from segue.errors import DataError, OutputError
from segue.files import replaced, scratch
from segue.recommender import Recommender, check_k

INTERACTIONS_AT_ONCE = 5_000_000
ANSWERS_AT_ONCE = 2_000_000
AT = "at"  # in addition to the log's columns: when each user is asked about
COLUMNS = ("user_id", "item_id", "score", "rank", "strategy")


@dataclass
class BulkSummary:
    """What was done.

    Attributes:
        users: Users of the log.
        rows: Recommendations written.
        unknown_items: Interactions left out, because the run does not know their item.
        popular_users: Users without a known item, who were given the most popular ones.
    """

    users: int = 0
    rows: int = 0
    unknown_items: int = 0
    popular_users: int = 0


def recommend_file(
    recommender: Recommender,
    source: str | Path,
    target: str | Path,
    k: int = 10,
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    time_col: str | None = None,
    at: object = None,
    force: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> BulkSummary:
    """Recommend to every user of a log, from the history in the log alone.

    Args:
        recommender: Whose recommendations.
        source: The log: a Parquet file, or a directory of them, its rows in any order.
        target: The Parquet file to be: `user_id`, `item_id`, `score`, `rank` and `strategy`, the
            rows of a user together and the best first. It appears whole or not at all.
        k: How many items for each user, 1 to 500.
        user_col, item_col, time_col: As for `read_log`.
        at: The moment at which it is asked, for every user; see `Recommender.recommend`. Or an
            expression over the log's columns, `pl.col("asked_at")`, which gives each user's own
            moment, the same in all rows of a user.
        force: Whether a file at `target` is replaced.
        on_progress: Called with the rows written so far, every `ANSWERS_AT_ONCE` or fewer.

    Raises:
        RequestError: `k` is out of range.
        OutputError: `target` exists or cannot be written.
        DataError: The log cannot be used, or a user has several moments.
    """
    source, target = Path(source), Path(target)
    check_k(k)
    _refuse_target(source, target, force)
    own_moments, at = (at, None) if isinstance(at, pl.Expr) else (None, at)
    log = _scan(source, user_col, item_col, time_col, own_moments)
    summary = BulkSummary()
    with _scratch(target) as directory:
        for interactions, moments in _parts(log, source):
            histories = Histories.from_log(interactions, recommender.vocabulary)
            if moments is not None:
                histories = histories.asked(_asked_at(recommender, histories, moments))
            summary.users += histories.num_users
            summary.unknown_items += len(interactions) - histories.num_interactions
            summary.popular_users += int(np.count_nonzero(histories.lengths == 0))
            for answers in _answers(recommender, histories, k, at):
                with _writing(target):
                    answers.write_parquet(directory / f"{summary.rows:020}.parquet")
                summary.rows += len(answers)
                if on_progress:
                    on_progress(summary.rows)
        with _writing(target):
            _join(directory, target)
    return summary


def _scan(
    source: Path,
    user_col: str | None,
    item_col: str | None,
    time_col: str | None,
    own_moments: pl.Expr | None,
) -> pl.LazyFrame:
    """The log's columns by their canonical names, users' moments as AT; unread and unchecked."""
    table = open_table(source, {})
    if source.is_file() and source.suffix.lower() not in PARQUET_SUFFIXES:
        raise DataError(f"{source} is no Parquet file; save the log as one, or ask for each user")
    columns = find_columns(
        table.names, {USER: user_col, ITEM: item_col, TIME: time_col}, str(source)
    )
    chosen = [pl.col(column).alias(role.name) for role, column in columns.items()]
    if own_moments is not None:
        missing = set(own_moments.meta.root_names()) - set(table.names)
        if missing:
            raise DataError(
                f"{source} has no column {shown_names(sorted(missing))} for the users' moments; "
                f"its columns are {shown_names(table.names)}"
            )
        chosen.append(own_moments.alias(AT))
    files = data_files(source, PARQUET_SUFFIXES) if source.is_dir() else [source]
    if not files:
        raise DataError(f"{source} holds no Parquet file; save the log as one")
    parts = [pl.scan_parquet(file, glob=False, hive_partitioning=False) for file in files]
    return pl.concat([part.select(chosen) for part in parts], how="vertical_relaxed")


def _parts(log: pl.LazyFrame, source: Path) -> Iterator[tuple[InteractionLog, pl.DataFrame | None]]:
    """The log in parts that share no user, of about `INTERACTIONS_AT_ONCE` interactions.

    With each part, USER and AT of its users where the log says when each is asked about.
    """
    has_moments = AT in log.collect_schema().names()
    with _reading(str(source)):
        size = log.select(pl.len()).collect().item()
    num_parts = max(1, math.ceil(size / INTERACTIONS_AT_ONCE))
    part_of_user = pl.col(USER.name).cast(pl.String).hash() % num_parts
    for part in range(num_parts):
        where = f"{source}, users' part {part + 1} of {num_parts}" if num_parts > 1 else str(source)
        with _reading(where):
            rows = log.filter(part_of_user == part).collect()
            if num_parts > 1 and rows.is_empty():
                continue
            interactions = read_log(rows.drop(AT, strict=False))
            moments = _moments_of(rows) if has_moments else None
        yield interactions, moments


def _moments_of(rows: pl.DataFrame) -> pl.DataFrame:
    """USER and AT, one row a user.

    Raises:
        DataError: A user has several moments, or none.
    """
    moments = rows.group_by(USER.name).agg(pl.col(AT).n_unique().alias("count"), pl.col(AT).first())
    bad = moments.filter((pl.col("count") > 1) | pl.col(AT).is_null())
    if bad.height:
        raise DataError(
            f"{bad.height:,} of {moments.height:,} users have several moments at which they "
            f"are asked about, or none, such as user {bad[USER.name].min()!r}; give each user "
            f"one moment, in every row"
        )
    return moments


def _asked_at(
    recommender: Recommender, histories: Histories, moments: pl.DataFrame
) -> npt.NDArray[np.int32]:
    """int32[users], in the seconds of models, in the order of the histories."""
    places = IdLookup(moments[USER.name]).find(histories.user_ids)
    return recommender.asked_at(moments[AT].gather(places), histories.num_users)


def _answers(
    recommender: Recommender, histories: Histories, k: int, at: object
) -> Iterator[pl.DataFrame]:
    """The recommendations user after user, `ANSWERS_AT_ONCE` rows or fewer at a time."""
    num_users = max(1, ANSWERS_AT_ONCE // k)
    for start in range(0, histories.num_users, num_users):
        users = np.arange(start, min(start + num_users, histories.num_users))
        yield recommender.recommend_histories(histories.take(users), k, at=at).select(COLUMNS)


def _join(directory: Path, target: Path) -> None:
    """Make one file of those in a directory, in the order of their names, and put it in place."""
    files = sorted(directory.glob("*.parquet"))
    with replaced(target) as draft:
        pl.scan_parquet(files, glob=False).sink_parquet(draft)


def _refuse_target(source: Path, target: Path, force: bool) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a directory; name a file")
    if target.suffix.lower() not in PARQUET_SUFFIXES:
        raise OutputError(f"{target}: recommendations are written as Parquet; call it .parquet")
    log, place = source.resolve(), target.resolve()
    if log == place or (log.is_dir() and log in place.parents):
        raise OutputError(f"{target} is in the place of the log {source}; choose another")
    if os.path.lexists(target) and not force:
        raise OutputError(
            f"{target} exists; replace it with --force (force=True in Python), or choose another "
            f"place"
        )


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A directory next to the target, gone afterwards; nobody else writes the target meanwhile."""
    with ExitStack() as stack:
        with _writing(target):
            directory = stack.enter_context(scratch(target))
        yield directory


@contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except BadRowsError as error:
        # Without the option of other commands that drops them.
        raise BadRowsError(where, error.faults) from error
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{where} cannot be read: {_first_line(error)}") from error


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise OutputError(
            f"cannot write {target}: {_first_line(error)}; nothing was "
            f"overwritten; fix the cause or choose another path"
        ) from error


def _first_line(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return next(iter((reason or str(error)).splitlines()), type(error).__name__)
