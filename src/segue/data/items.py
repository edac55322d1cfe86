"""The catalogue: titles and whatever else is known of the items."""

from dataclasses import dataclass

import polars as pl

from segue.data.checks import refuse_where
from segue.data.ids import IdLookup, as_ids
from segue.data.readers import Layout, Source, open_table
from segue.data.roles import ITEM, TITLE, find_columns
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError

# MovieLens' movies.dat (1M, 10M) and u.item (100K), as their README files describe them.
GENRES_OF_100K = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy "
    "Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western"
)
LAYOUTS = {
    ".dat": Layout("::", (ITEM.name, TITLE.name, "genres")),
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
    """

    frame: pl.DataFrame

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
    source: Source, *, item_col: str | None = None, title_col: str | None = None
) -> Catalogue:
    """Read and check a catalogue.

    Args:
        source: CSV or TSV (`.gz` too), Parquet (a file or a directory), MovieLens' `movies.dat` or
            `u.item`, RecBole's `.item`, or a Polars or pandas DataFrame.
        item_col, title_col: The columns, where they are not called `item_id` and `title` or by a
            usual alias such as `movieId` or `name`. A title may be missing.

    Raises:
        DataError: As `read_log`, and an item that has two rows.
    """
    table = open_table(source, LAYOUTS)
    columns = find_columns(table.names, {ITEM: item_col, TITLE: title_col}, table.label)
    others = [name for name in table.names if name not in columns.values()]
    taken = [role.name for role in columns if role.name in others]
    if taken:
        raise DataError(
            f"{table.label}: another column is chosen for {taken[0]}, but one of that name exists; "
            f"rename or drop it"
        )
    raw = table.read([*columns.values(), *others]).frame
    if raw.is_empty():
        raise DataError(f"{table.label} holds no items; give a catalogue that has some")
    ids = as_ids(raw[columns[ITEM]].alias(ITEM.name), table.label, is_untyped=table.is_untyped)
    is_repeated = ~ids.is_first_distinct()
    refuse_where(is_repeated, ids, table.label, "has a second row", "keep one row per item")
    frame = raw.rename({column: role.name for role, column in columns.items()})
    frame = frame.with_columns(ids)
    if TITLE in columns:
        frame = frame.with_columns(pl.col(TITLE.name).cast(pl.String))
    return Catalogue(frame)
