"""`segue fit`: from a log to a run."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segue.cli.checkpoints import checkpoint_of, refuse_checkpoint, remove_checkpoint
from segue.cli.inputs import chosen_validation, read_source
from segue.cli.items import ItemOptions
from segue.cli.options import Force, LogColumns, LogSource, number, whole_number
from segue.cli.output import note
from segue.cli.report import print_run
from segue.errors import OutputError, RequestError
from segue.locks import locked

if TYPE_CHECKING:
    from segue.config import Config
    from segue.data.items import Catalogue
    from segue.data.log import InteractionLog
    from segue.data.splits import Split
    from segue.recommender import Recommender
    from segue.training.options import Session


@dataclass(frozen=True)
class Filters:
    """What of the log is left out and reordered, in this order."""

    drop_duplicates: Annotated[
        bool,
        typer.Option("--drop-duplicates", help="Keep the first of the same user, item and time."),
    ] = False
    ties: Annotated[
        Literal["log", "shuffle"],
        typer.Option(
            help="The order of a user's interactions of one time: the log's, or one drawn by the "
            "training's seed."
        ),
    ] = "log"
    join_repeats: Annotated[
        bool,
        typer.Option(
            "--join-repeats",
            help="Join a user's interactions with one item in a row into the first of them.",
        ),
    ] = False
    core: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            parser=whole_number,
            help="Keep users and items with K interactions, repeatedly.",
        ),
    ] = None
    min_history: Annotated[
        int | None,
        typer.Option(metavar="N", parser=whole_number, help="Keep users with N interactions."),
    ] = None

    def apply(self, log: "InteractionLog", seed: int) -> "InteractionLog":
        """The log without what is left out; `seed` is for what is drawn."""
        if self.drop_duplicates:
            log = log.without_duplicates()
        if self.ties == "shuffle":
            log = log.with_shuffled_ties(seed)
        if self.join_repeats:
            log = log.without_repeats()
        if self.core is not None:
            log = log.k_core(self.core)
        if self.min_history is not None:
            log = log.min_history(self.min_history)
        return log


@dataclass(frozen=True)
class Recipe:
    """What learns, from which part of the log, and who validates it."""

    preset: Annotated[
        str, typer.Option(metavar="PRESET", help="A preset's name, or a .toml file with one.")
    ] = "sasrec"
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the preset."),
    ] = None
    split: Annotated[
        Literal["leave-one-out", "last-basket", "global-time", "none"],
        typer.Option(
            help="Hold out everyone's last two interactions, everything of their last two moments, "
            "the last fifth of the log, or nothing."
        ),
    ] = "leave-one-out"
    validation_from: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="With --split global-time: validate on what is at or after this time, a date "
            "(ISO 8601) or a number in the log's unit.",
        ),
    ] = None
    test_from: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="With --split global-time: test on what is at or after it."
        ),
    ] = None
    validation_users: Annotated[
        str | None,
        typer.Option(metavar="FILE|N", help="Validate on these users, or on N drawn users."),
    ] = None

    repeats: Annotated[
        bool,
        typer.Option(
            "--repeats",
            help="Users come back to items, as with groceries or music: items of a history may be "
            "recommended again.",
        ),
    ] = False

    def config(self) -> "Config":
        """The preset with its changed settings."""
        from segue.config import load_preset

        return load_preset(self.preset).with_settings(self.settings or [])

    def divided(self, log: "InteractionLog") -> "Split":
        """The log in its parts.

        Raises:
            DataError: The log cannot be split so.
        """
        from segue.data import splits

        if self.split == splits.GLOBAL_TIME:
            return splits.global_time(
                log,
                validation_from=self.validation_from,
                test_from=self.test_from,
                repeats=self.repeats,
            )
        cuts = {
            splits.LEAVE_ONE_OUT: splits.leave_one_out,
            splits.LAST_BASKET: splits.last_basket,
            splits.NO_SPLIT: splits.no_split,
        }
        return cuts[self.split](log, repeats=self.repeats)

    def refuse_moments(self) -> None:
        """Refuse moments that the split would not read.

        Raises:
            RequestError: There are some.
        """
        given = {"--validation-from": self.validation_from, "--test-from": self.test_from}
        for option, moment in given.items():
            if moment is not None and self.split != "global-time":
                raise RequestError(
                    f"{option} {moment} needs --split global-time, got --split {self.split}"
                )


@dataclass(frozen=True)
class SessionOptions:
    """How a training is kept safe and followed."""

    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint of an interrupted training.")
    ] = False
    checkpoint_every: Annotated[
        float,
        typer.Option(metavar="SECONDS", parser=number, help="How often to save a checkpoint."),
    ] = 120.0
    checkpoint_epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N", parser=whole_number, help="Save one after every N epochs as well."
        ),
    ] = None
    csv_log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one line an epoch to this file.")
    ] = None
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Write TensorBoard's events there.")
    ] = None

    def session(self, checkpoint: Path) -> "Session":
        """The session that these ask for.

        Raises:
            TrainingError: There is no checkpoint to resume from.
        """
        from segue.training.checkpoint import refuse_missing
        from segue.training.options import Session

        if self.resume:
            refuse_missing(checkpoint)
        return Session(
            checkpoint=checkpoint,
            checkpoint_every_s=self.checkpoint_every,
            checkpoint_every_epochs=self.checkpoint_epochs,
            resume=self.resume,
            show_progress=True,
            csv_log=self.csv_log,
            tensorboard=self.tensorboard,
        )


def fit(
    source: LogSource,
    out: Annotated[
        Path,
        typer.Option(metavar="RUN", show_default=False, help="The directory of the run to be."),
    ],
    recipe: Recipe,
    columns: LogColumns,
    filters: Filters,
    options: SessionOptions,
    items: ItemOptions,
    force: Force = False,
) -> None:
    """Train a recommender on a log, test it, and write the run.

    A training that is interrupted leaves a checkpoint in RUN.checkpoint; the same command with
    --resume goes on from there.
    """
    from segue.artifact import claimed_output

    checkpoint = checkpoint_of(out)
    with claimed_output(out, force=force), locked(checkpoint):
        if not (options.resume or force):
            refuse_checkpoint(checkpoint)
        _refuse_csv_log(options, recipe, [source, items.items], force)
        session = options.session(checkpoint)
        recipe.refuse_moments()
        items.refuse_without_file()
        config = items.configured(recipe.config())
        log, own_catalogue = read_source(source, columns)
        log = filters.apply(log, config.training.seed)
        catalogue = items.read(log) or own_catalogue
        recommender = _trained(log, catalogue, recipe, config, session)
        recommender.save(out, force=force)
        remove_checkpoint(checkpoint)
    print_run(out, recommender)


def _trained(
    log: "InteractionLog",
    catalogue: "Catalogue | None",
    recipe: Recipe,
    config: "Config",
    session: "Session",
) -> "Recommender":
    """Trained and tested, after a word on the log; an older checkpoint is given up or resumed."""
    from segue.fitting import fit as train

    split = recipe.divided(log)
    validation = chosen_validation(split, recipe.validation_users, config.training.seed)
    note(log.summary(), *(catalogue.notes if catalogue else ()), *split.notes)
    if session.checkpoint is not None and not session.resume:
        remove_checkpoint(session.checkpoint)
    return train(split, validation=validation, items=catalogue, preset=config, session=session)


def _refuse_csv_log(
    options: SessionOptions, recipe: Recipe, inputs: list[str | Path | None], force: bool
) -> None:
    """Refuse a log of the training that would replace one of its inputs, or an older log unasked.

    Raises:
        OutputError: It would, or it cannot be written.
    """
    log = options.csv_log
    if log is None:
        return
    named = [*inputs, recipe.preset, recipe.validation_users]
    if any(each is not None and Path(each).resolve() == log.resolve() for each in named):
        raise OutputError(f"--csv-log {log} is an input of this training; name another file")
    if log.is_dir():
        raise OutputError(f"--csv-log {log} is a directory; name a file")
    if log.exists() and not (options.resume or force):
        raise OutputError(f"{log} exists; name another file, or replace it with --force")
    if not os.access(log.parent, os.W_OK):
        raise OutputError(f"cannot write --csv-log {log}: no writable directory {log.parent}")
