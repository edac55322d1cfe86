"""The catalogue: titles and whatever else is known of the items."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import polars as pl

from segue.data.checks import refuse_where, shown, shown_names
from segue.data.ids import IdLookup, as_ids
from segue.data.labels import BAR, split_labels
from segue.data.layouts import Layout
from segue.data.log import InteractionLog
from segue.data.readers import Source, open_table
from segue.data.roles import (
    CATALOGUE_ITEM,
    ITEM,
    TITLE,
    Role,
    column_notes,
    find_columns,
    unsettled_notes,
)
from segue.data.table import Table
from segue.data.text_format import TextFormat
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError

# MovieLens' movies.dat (1M, 10M) and u.item (100K), as their README files describe them.
GENRES_OF_100K = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy "
    "Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western"
)
LAYOUTS = {
    ".dat": Layout("::", (ITEM.name, TITLE.name, "genres"), {"genres": BAR}),
    ".item": Layout(
        "|",
        (
            *(ITEM.name, TITLE.name, "release_date", "video_release_date", "imdb_url"),
            *GENRES_OF_100K.split(),
        ),
    ),
}


@dataclass(frozen=True)
class Catalogue:
    """What is known of the items, one row each.

    Attributes:
        frame: `item_id` (Int64 or String, all different), then `title` where there is one, then
            every other column as it came.
        notes: One line each: which columns were recognised, what was left out and why.
    """

    frame: pl.DataFrame
    notes: tuple[str, ...] = ()

    def aligned(self, vocabulary: Vocabulary) -> pl.DataFrame:
        """One row per dense id 1..num_items, in that order; nulls where an item is not known.

        `item_id` is the vocabulary's. Ids of another type than the vocabulary's compare by text.
        """
        places = pl.Series(IdLookup(self.frame[ITEM.name]).find(vocabulary.ids))
        known = places.set(places < 0, None)
        return self.frame.select(pl.all().gather(known)).with_columns(
            vocabulary.ids.alias(ITEM.name)
        )


def read_items(
    source: Source,
    *,
    item_col: str | None = None,
    title_col: str | None = None,
    log: InteractionLog | None = None,
    list_cols: Collection[str] = (),
    refuse_duplicates: bool = False,
    text: TextFormat = TextFormat(),  # noqa: B008 - frozen
) -> Catalogue:
    """Read and check a catalogue.

    Of an item's rows the first one is kept, and the notes count the others. A column that is called
    `item_id` or `title` but was not chosen for that is left out.

    Args:
        source: As for `read_log`; of MovieLens' files `movies.dat` or `u.item`, of RecBole's
            `.item`.
        item_col, title_col: The columns, where they are not called `item_id` and `title` or by a
            usual alias such as `movieId` or `name`. A title may be missing.
        log: The log of these items: a column that is called as its item column is tried first.
        list_cols: Columns of text that hold several labels each, with a `|` between them, such as
            genres. Columns of lists need no mention, nor do those that the format marks as lists.
        refuse_duplicates: Whether an item that has two rows is refused.
        text: How a text file is written, where that is not what it looks like.

    Raises:
        DataError: As `read_log`, and duplicates that are to be refused.
    """
    table = open_table(source, LAYOUTS, text)
    columns = _columns_of(table, item_col, title_col, log)
    left_out = _left_out(table, columns)
    others = [name for name in table.names if name not in {*columns.values(), *left_out}]
    rows = table.read([*columns.values(), *others])
    if rows.frame.is_empty():
        raise DataError(f"{table.label} holds no items; give a catalogue that has some")
    frame = rows.frame.rename({column: role.name for role, column in columns.items()})
    ids = as_ids(frame[ITEM.name], table.label, is_untyped=table.is_untyped)
    known = {name: separator for name, separator in table.lists.items() if name in others}
    separators = {**known, **dict.fromkeys(list_cols, BAR)}
    frame = _with_lists(frame.with_columns(ids), separators, table.label)
    frame, without_titles = _with_titles(frame, table.label, are_needed=title_col is not None)
    if refuse_duplicates:
        is_repeated = ~ids.is_first_distinct()
        refuse_where(is_repeated, ids, table.label, "has a second row", "keep one row per item")
    notes = [
        *rows.notes(),
        *column_notes({r: name for r, name in columns.items() if r.name in frame.columns}),
        *unsettled_notes(table.names, [TITLE], columns),
        *without_titles,
        *(f"the column {name!r} is left out: {why}" for name, why in left_out.items()),
        *_duplicate_notes(frame),
    ]
    frame = frame.unique(ITEM.name, keep="first", maintain_order=True)
    return Catalogue(frame, tuple(f"items: {note}" for note in notes))


def _columns_of(
    table: Table, item_col: str | None, title_col: str | None, log: InteractionLog | None
) -> dict[Role, str]:
    """The columns of the ids and, where there is one, of the titles."""
    own = log.columns.get(ITEM.name) if log is not None else None
    columns = find_columns(
        table.names,
        {CATALOGUE_ITEM: item_col, TITLE: title_col},
        table.label,
        preferred={} if own is None else {CATALOGUE_ITEM: own},
    )
    for column in columns.values():
        if column in table.lacking:
            raise table.lack_of(column)
    return columns


def _left_out(table: Table, columns: Mapping[Role, str]) -> dict[str, str]:
    """The columns that cannot be kept, and why."""
    taken = {role.name for role in columns} - set(columns.values())
    lacking = {name: f"{file} has none" for name, file in table.lacking.items()}
    others = {name: f"{name} is read from another" for name in table.names if name in taken}
    return {**lacking, **others}


def _with_titles(
    frame: pl.DataFrame, where: str, *, are_needed: bool
) -> tuple[pl.DataFrame, list[str]]:
    """The frame with its titles as text, or without them; then a line says why.

    Raises:
        DataError: They are needed and no text.
    """
    if TITLE.name not in frame.columns:
        return frame, []
    titles = frame[TITLE.name]
    try:
        return frame.with_columns(titles.cast(pl.String)), []
    except pl.exceptions.PolarsError:
        fault = (
            f"{where}: title is of type {titles.dtype}; titles are text: name another column with "
            f"{TITLE.choice}"
        )
    if are_needed:
        raise DataError(fault)
    return frame.drop(TITLE.name), [f"title is left out, as no option asks for it ({fault})"]


def _with_lists(frame: pl.DataFrame, separators: Mapping[str, str], where: str) -> pl.DataFrame:
    """The frame with these columns of text as lists; those that are lists already stay.

    Raises:
        DataError: There is no such column, or it is neither text nor lists.
    """
    lists = []
    for name, separator in separators.items():
        if name not in frame.columns:
            raise DataError(
                f"{where} has no column {name!r} to read as lists; its columns are "
                f"{shown_names(frame.columns)}: name one with --list-col (list_cols= in Python)"
            )
        column = frame[name]
        if isinstance(column.dtype, pl.List):
            continue
        if column.dtype not in (pl.String, pl.Null):
            raise DataError(
                f"{where}: {name} is of type {column.dtype}; lists are read from text: name "
                f"another column with --list-col (list_cols= in Python)"
            )
        lists.append(split_labels(column.cast(pl.String), separator))
    return frame.with_columns(lists)


def _duplicate_notes(frame: pl.DataFrame) -> list[str]:
    """What is lost where every item keeps its first row alone, a line for each kind of loss."""
    num_items = frame[ITEM.name].n_unique()
    if num_items == frame.height:
        return []
    different = frame.unique(maintain_order=True)
    notes = []
    if num_equal := frame.height - different.height:
        notes.append(f"dropped {num_equal:,} of {frame.height:,} rows that equal another")
    if num_other := different.height - num_items:
        item_id = different[ITEM.name].filter(~different[ITEM.name].is_first_distinct())[0]
        notes.append(
            f"dropped {num_other:,} of {frame.height:,} rows of items whose first row is another, "
            f"such as {shown(item_id)}; --refuse-duplicate-items (refuse_duplicates= in Python) "
            f"refuses them"
        )
    return notes
