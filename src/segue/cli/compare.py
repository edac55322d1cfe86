"""`segue compare`: runs side by side with the baselines, and which differences are real."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from segue.cli.options import AsJson
from segue.cli.output import Cell, note, print_json, print_table, say


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", show_default=False, help="Runs, as segue fit wrote them."),
    ],
    as_json: AsJson = False,
) -> None:
    """Compare runs with each other and the baselines, and say whether the differences are real.

    The first run is compared with each of the others and with each baseline, user by user, on the
    test part that they must share.
    """
    from segue.artifact import read_run
    from segue.reporting.runs import compare_runs

    names = _names(runs)
    found = compare_runs({name: read_run(path) for name, path in zip(names, runs, strict=True)})
    if as_json:
        print_json(found)
    else:
        _print_comparison(found)


def _names(paths: Sequence[Path]) -> list[str]:
    """The names of the directories, or the whole paths where two have the same."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _print_comparison(found: Mapping[str, Any]) -> None:
    from segue.evaluation.comparison import COMPARED

    say(
        f"test part of the split {found['split']}: {found['users']:,} users, "
        f"{found['candidates']:,} candidates, {found['protocol']} ranking; 95% intervals\n"
    )
    rows: list[list[Cell]] = []
    for name, system in found["systems"].items():
        cells: list[Cell] = []
        for metric in COMPARED:
            low, high = system["intervals"][metric]
            cells.append(f"{system['metrics'][metric]:.4f} ({low:.4f} to {high:.4f})")
        rows.append([name, *cells])
    print_table(["", *(metric.upper() for metric in COMPARED)], rows)
    say()
    for difference in found["differences"]:
        say(difference["verdict"])
    others = len(found["differences"])
    note(
        f"note: paired bootstrap over the users; the p-values are raised for {others} comparisons "
        f"(Holm)",
        *(f"note: {line}" for line in found["notes"]),
    )
