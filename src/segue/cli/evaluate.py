"""`segue evaluate`: how good a run is, on its own test part."""

from typing import Annotated, Literal

import typer

from segue.cli.options import AsJson, RunPath
from segue.cli.output import print_json
from segue.cli.report import print_report


def evaluate(
    run: RunPath,
    protocol: Annotated[
        Literal["full", "sampled"],
        typer.Option(help="Rank the whole catalogue, or 100 items drawn for each user."),
    ] = "full",
    targets: Annotated[
        Literal["first", "all"],
        typer.Option(
            help="Ask for each user's first test item, or for all of them one after another."
        ),
    ] = "first",
    request_time: Annotated[
        bool,
        typer.Option(help="Whether the model may know when each target was asked for."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Measure a run on its own test part.

    Baselines are measured for comparison. The run stays as it is.
    """
    from segue.recommender import Recommender

    recommender = Recommender.load(run)
    split = recommender.run.split
    test = split.successive_test() if split and targets == "all" else None
    report = recommender.evaluate(test, protocol=protocol, request_time=request_time)
    if as_json:
        print_json(report)
    else:
        print_report(report)
