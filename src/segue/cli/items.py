"""The catalogue of a log, the options that say how it is read, and `segue items`."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segue.cli.options import Force, RunPath, spelled_out
from segue.cli.output import note, say
from segue.errors import RequestError

if TYPE_CHECKING:
    from segue.config import Config
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
    item_features: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN,...",
            help="Columns of --items that say what an item is: text, labels, numbers or vectors. "
            "The model reads them, and knows new items by them.",
        ),
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
    items_encoding: Annotated[
        str | None,
        typer.Option(metavar="ENCODING", help="Of --items, where that is text and not UTF-8."),
    ] = None

    def read(self, log: "InteractionLog | None") -> "Catalogue | None":
        """The catalogue of the log's items; None where no file is given.

        Raises:
            DataError: It cannot be used.
        """
        from segue.data.items import read_items
        from segue.data.text_format import TextFormat

        if self.items is None:
            return None
        return read_items(
            self.items,
            item_col=self.items_id_col,
            title_col=self.items_title_col,
            log=log,
            list_cols=self.list_col or (),
            refuse_duplicates=self.refuse_duplicate_items,
            text=TextFormat(encoding=self.items_encoding),
        )

    def configured(self, config: "Config") -> "Config":
        """The configuration with a tower that reads the features, where some are named."""
        if self.item_features is None:
            return config
        columns = [name.strip() for name in self.item_features.split(",") if name.strip()]
        return config.with_settings(["tower=content", f"features={json.dumps(columns)}"])

    def refuse_without_file(self) -> None:
        """Refuse options of a catalogue where there is none.

        Raises:
            RequestError: There is none.
        """
        for option in fields(self):
            if option.name == "item_features":  # a named dataset may bring a catalogue of its own
                continue
            if self.items is None and getattr(self, option.name) not in (option.default, []):
                flag = f"--{option.name.replace('_', '-')}"
                raise RequestError(f"{flag} needs --items, the file of the items")


app = typer.Typer(help="What a run knows of its items.")


@app.command()
@spelled_out
def add(
    run: RunPath,
    out: Annotated[
        Path, typer.Option(metavar="RUN", show_default=False, help="The directory of the new run.")
    ],
    items: ItemOptions,
    force: Force = False,
) -> None:
    """Add items to a run by their content, and bring up to date what it knows of others.

    Nothing is trained. The run must have been fitted with --item-features; what --items says of an
    item replaces what the run knew of it.
    """
    from segue.artifact import claimed_output
    from segue.recommender import Recommender

    with claimed_output(out, force=force):
        catalogue = items.read(None)
        if catalogue is None:
            raise RequestError("segue items add needs --items FILE, which describes the items")
        if items.item_features is not None:
            raise RequestError("--item-features is decided when a run is fitted; leave it out here")
        before = Recommender.load(run)
        after = before.with_items(catalogue)
        after.save(out, force=force)
    num_new = after.vocabulary.num_items - before.vocabulary.num_items
    note(*catalogue.notes)
    say(f"{num_new:,} of {len(catalogue.frame):,} items are new. The run is in {out}.")
