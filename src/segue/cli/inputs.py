"""What commands read besides runs: logs by path or name, and lists of users."""

from pathlib import Path
from typing import TYPE_CHECKING

from segue.cli.options import LogColumns
from segue.cli.output import note
from segue.errors import DataError, RequestError

if TYPE_CHECKING:
    import polars as pl

    from segue.data.inspection import Inspection
    from segue.data.items import Catalogue
    from segue.data.log import InteractionLog
    from segue.data.splits import HeldOut, Split


def read_source(source: str, columns: LogColumns) -> "tuple[InteractionLog, Catalogue | None]":
    """The log at a path or else of a dataset's name, and the catalogue that a dataset has.

    Raises:
        DataError: There is neither, or the log cannot be used.
        DatasetError: The dataset cannot be fetched.
    """
    found = _found(source)
    if isinstance(found, Path):
        return columns.read(found), None
    log, items = found
    return (log if columns == LogColumns() else columns.read(log.frame)), items


def inspect_source(source: str, columns: LogColumns) -> "Inspection":
    """The log at a path or else of a dataset's name, examined.

    Raises:
        DataError: There is neither, or the table itself cannot be read.
        DatasetError: The dataset cannot be fetched.
    """
    found = _found(source)
    return columns.inspected(found if isinstance(found, Path) else found[0].frame)


def _found(source: str) -> "Path | tuple[InteractionLog, Catalogue | None]":
    """The path that exists, or the dataset of that name."""
    from segue.data.sources import SOURCES, load

    path = Path(source)
    if path.exists():
        return path
    if source not in SOURCES.names():
        names = ", ".join(SOURCES.names())
        raise DataError(f"no such file or directory: {source}; nor is it a dataset: {names}")
    return load(source, progress=True)


def chosen_validation(split: "Split", users: str | None, seed: int) -> "HeldOut | None":
    """The split's validation part: all of it, or the users in a file, or so many drawn by a seed.

    Raises:
        RequestError: Users are chosen, but the split holds nothing out for validation.
        DataError: The file cannot be read, or none of its users is held out.
    """
    held_out = split.validation
    if users is None:
        return held_out
    if held_out is None:
        raise RequestError(
            f"--validation-users {users}: the split {split.kind} holds nothing out for validation; "
            f"leave the option out, or choose another --split"
        )
    if users.isdecimal() and not Path(users).exists():
        chosen, asked = held_out.sample(int(users), seed), int(users)
    else:
        user_ids = _user_ids(Path(users))
        chosen, asked = held_out.only(user_ids), user_ids.n_unique()
    num_users = chosen.histories.user_ids.n_unique()
    note(f"validating on {num_users:,} of the {asked:,} users asked for")
    return chosen


def _user_ids(path: Path) -> "pl.Series":
    from segue.data.checks import shown_names
    from segue.data.ids import as_ids
    from segue.data.readers import open_table
    from segue.data.roles import USER, find_columns
    from segue.data.text_files import NoHeaderError

    needed = f"{path} needs a column user_id, in a text file a header line of that name"
    try:
        table = open_table(path, {})
    except NoHeaderError:
        raise DataError(f"{needed}; line 1 looks like data") from None
    try:
        column = find_columns(table.names, {USER: None}, table.label)[USER]
    except DataError:
        raise DataError(f"{needed}; its columns are {shown_names(table.names)}") from None
    values = table.read([column]).frame[column].alias(USER.name)
    return as_ids(values, table.label, is_untyped=table.is_untyped)
