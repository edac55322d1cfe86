"""`segue run`: what is done to a run as it lies on the disk."""

from pathlib import Path
from typing import Annotated

import typer

from segue.cli.options import Force, RunPath, TakesNegativeIds
from segue.cli.output import note, say

app = typer.Typer(help="What a run holds.")
STILL = (
    "the weights, the counts of the items and the figures of the report were made with this user "
    "too: train again without them (segue events export --whole leaves erased users out)"
)


@app.command(cls=TakesNegativeIds)
def forget(
    run: RunPath,
    user: Annotated[str, typer.Argument(metavar="USER", show_default=False, help="A user's id.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Write another run, instead of RUN itself."),
    ] = None,
    force: Force = False,
) -> None:
    """Write a run again without the history and the ranks of a user.

    Copies of the run, its earlier versions and backups still have the user, and so do the weights,
    as far as they learned from them.
    """
    from segue.artifact import claimed_output, read_run, without_user, write_run

    target = out or run
    is_replaced = force or out is None
    with claimed_output(target, force=is_replaced):
        write_run(without_user(read_run(run), user), target, force=is_replaced)
    say(f"The user is forgotten. The run is in {target}.")
    if out is not None:
        note(f"{run} still has the user")
    note(STILL)
