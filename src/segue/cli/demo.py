"""`segue demo`: MovieLens, trained, tested and shown."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segue.cli.options import Force
from segue.cli.output import note, say, shown_cell
from segue.cli.report import print_headline, print_next

if TYPE_CHECKING:
    from segue.data.items import Catalogue
    from segue.data.log import InteractionLog
    from segue.recommender import Recommender

DEFAULT_RUN = Path("runs/demo")
FIRST_CHOICE, SECOND_CHOICE = "ml-1m", "ml-100k"
PRESET = "quick"
SHOWN = 10
# What the demo learns from in all, at least: a small log is gone over more often.
INTERACTIONS_SEEN = 2_400_000


def demo(
    out: Annotated[
        Path, typer.Option(metavar="RUN", help="The directory of the run to be.")
    ] = DEFAULT_RUN,
    force: Force = False,
) -> None:
    """Train on MovieLens, test, and show someone's next films.

    An earlier run in the default place is replaced.
    """
    from segue.artifact import claimed_output
    from segue.config import load_preset
    from segue.data.splits import leave_one_out
    from segue.fitting import fit
    from segue.training.options import Session

    force = force or out == DEFAULT_RUN
    with claimed_output(out, force=force):
        log, films = _movielens()
        split = leave_one_out(log)
        note(log.summary(), *split.notes)
        preset = load_preset(PRESET)
        epochs = max(preset.training.epochs, INTERACTIONS_SEEN // len(log))
        config = preset.with_settings([f"epochs={epochs}"])
        recommender = fit(split, items=films, preset=config, session=Session(show_progress=True))
        recommender.save(out, force=force)
    print_headline(recommender.run.report)
    _print_example(recommender, split.histories.user_ids[0])
    say(f"\nThe run is in {out}.")
    print_next(out, recommender)


def _movielens() -> "tuple[InteractionLog, Catalogue | None]":
    """The larger MovieLens where it can be had, else the smaller."""
    from segue.data.sources import load
    from segue.errors import DatasetError

    try:
        dataset = load(FIRST_CHOICE, progress=True)
        note(f"training on {FIRST_CHOICE}")
    except DatasetError as error:
        note(f"training on {SECOND_CHOICE}, because {error}")
        dataset = load(SECOND_CHOICE, progress=True)
    return dataset


def _print_example(recommender: "Recommender", user_id: str | int) -> None:
    """The newest films of a user, and the films that are recommended next."""
    history = recommender.history_of(user_id)
    say(f"\nThe last films of user {shown_cell(user_id)}, the newest at the end:")
    for title in recommender.titles(history[-SHOWN:]):
        say(f"      {shown_cell(title)}")
    say("\nRecommended next:")
    items = recommender.answer(history, SHOWN).items
    for rank, title in enumerate(recommender.titles(list(items["item_id"])), 1):
        say(f"  {rank:2}  {shown_cell(title)}")
