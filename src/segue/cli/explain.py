"""`segue explain`: why a run scores an item as it does after a history."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from segue.cli.options import AsJson, RunPath
from segue.cli.output import note, print_json, print_table, say, shown_cell

if TYPE_CHECKING:
    from segue.reporting.explanation import Explanation


def explain(
    run: RunPath,
    history: Annotated[
        str,
        typer.Option(
            metavar="ID,ID,...", show_default=False, help="A history, the oldest item first."
        ),
    ],
    item: Annotated[
        str, typer.Option(metavar="ID", show_default=False, help="The item to explain.")
    ],
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The moment at which it is asked: ISO 8601, or a number in the log's unit.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell how the score of an item changes without each item of the history.

    A change below 0 means that the item left out speaks for the one explained. The changes do not
    add up to the score.
    """
    from segue.recommender import Recommender
    from segue.reporting.explanation import explain as explained

    recommender = Recommender.load(run)
    texts = [text.strip() for text in history.split(",") if text.strip()]
    found = explained(recommender, texts, item.strip(), at=at)
    if found.unknown_items:
        note(f"skipped {len(found.unknown_items)} of {len(texts)} items, unknown to the run")
    if as_json:
        print_json(asdict(found))
    else:
        _print_explanation(found)


def _print_explanation(found: "Explanation") -> None:
    say(f"{shown_cell(found.title)}: score {found.score:.4f}\n")
    print_table(
        ["place", "item_id", "left out", "score without", "change"],
        [
            (each.place, each.item_id, each.title, each.score_without, f"{each.change:+.4f}")
            for each in found.influences
        ],
    )
    say(f"\n{found.note}")
