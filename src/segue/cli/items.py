"""The catalogue of a log, and the options that say how it is read."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segue.errors import RequestError

if TYPE_CHECKING:
    from segue.data.items import Catalogue
    from segue.data.log import InteractionLog


@dataclass(frozen=True)
class ItemOptions:
    """A catalogue's file, and its columns where they are not called as usual."""

    items: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Titles and whatever else items have.")
    ] = None
    items_id_col: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The column of item ids in --items; the log's own item column is tried first.",
        ),
    ] = None
    items_title_col: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of titles in --items.")
    ] = None
    list_col: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="A column of --items that holds several labels, with a | between them.",
        ),
    ] = None
    refuse_duplicate_items: Annotated[
        bool,
        typer.Option(
            "--refuse-duplicate-items",
            help="Refuse a catalogue with two rows of an item, instead of keeping the first.",
        ),
    ] = False

    def read(self, log: "InteractionLog") -> "Catalogue | None":
        """The catalogue of the log's items; None where no file is given.

        Raises:
            DataError: It cannot be used.
        """
        from segue.data.items import read_items

        if self.items is None:
            return None
        return read_items(
            self.items,
            item_col=self.items_id_col,
            title_col=self.items_title_col,
            log=log,
            list_cols=self.list_col or (),
            refuse_duplicates=self.refuse_duplicate_items,
        )

    def refuse_without_file(self) -> None:
        """Refuse options of a catalogue where there is none.

        Raises:
            RequestError: There is none.
        """
        for option in fields(self):
            if self.items is None and getattr(self, option.name) not in (option.default, []):
                flag = f"--{option.name.replace('_', '-')}"
                raise RequestError(f"{flag} needs --items, the file of the items")
