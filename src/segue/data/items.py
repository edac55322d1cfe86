"""The catalogue: titles and whatever else is known of the items."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import polars as pl

from segue.data.checks import refuse_where, shown, shown_names
from segue.data.ids import IdLookup, as_ids
from segue.data.labels import BAR, split_labels
from segue.data.log import InteractionLog
from segue.data.readers import Source, open_table
from segue.data.roles import (
    CATALOGUE_ITEM,
    ITEM,
    TITLE,
    column_notes,
    find_columns,
    unsettled_notes,
)
from segue.data.text_files import Layout, TextFormat
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
    own = log.columns.get(ITEM.name) if log is not None else None
    columns = find_columns(
        table.names,
        {CATALOGUE_ITEM: item_col, TITLE: title_col},
        table.label,
        preferred={} if own is None else {CATALOGUE_ITEM: own},
    )
    taken = {role.name for role in columns} - set(columns.values())
    unread = taken | set(columns.values()) | table.lacking.keys()
    others = [name for name in table.names if name not in unread]
    for column in columns.values():
        if column in table.lacking:
            raise table.lack_of(column)
    rows = table.read([*columns.values(), *others])
    raw = rows.frame
    if raw.is_empty():
        raise DataError(f"{table.label} holds no items; give a catalogue that has some")
    ids = as_ids(
        raw[columns[CATALOGUE_ITEM]].alias(ITEM.name), table.label, is_untyped=table.is_untyped
    )
    frame = raw.rename({column: role.name for role, column in columns.items()})
    frame = frame.with_columns(ids)
    known = {name: separator for name, separator in table.lists.items() if name in others}
    frame = _with_lists(frame, {**known, **dict.fromkeys(list_cols, BAR)}, table.label)
    left_out = unsettled_notes(table.names, [TITLE], columns)
    if TITLE in columns:
        try:
            frame = frame.with_columns(_as_titles(frame[TITLE.name], table.label))
        except DataError as error:
            if title_col is not None:
                raise
            frame = frame.drop(TITLE.name)
            left_out.append(f"title is left out, as no option asks for it ({error})")
    if refuse_duplicates:
        is_repeated = ~frame[ITEM.name].is_first_distinct()
        refuse_where(is_repeated, ids, table.label, "has a second row", "keep one row per item")
    notes = rows.notes() + column_notes(columns)
    notes += left_out
    notes += [
        f"the column {name!r} is left out: {name} is read from another"
        for name in table.names
        if name in taken
    ]
    notes += [
        f"the column {name!r} is left out: {file} has none"
        for name, file in table.lacking.items()
        if name not in taken
    ]
    notes += _duplicate_notes(frame)
    frame = frame.unique(ITEM.name, keep="first", maintain_order=True)
    return Catalogue(frame, tuple(f"items: {note}" for note in notes))


def _as_titles(values: pl.Series, where: str) -> pl.Series:
    """The titles as text.

    Raises:
        DataError: They are of a type that is no text.
    """
    try:
        return values.cast(pl.String)
    except pl.exceptions.PolarsError:
        raise DataError(
            f"{where}: title is of type {values.dtype}; titles are text: name another column with "
            f"{TITLE.choice}"
        ) from None


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
