"""`segue tune`: a search for the settings of a preset that validate best on a log."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segue.cli.files import refuse_taken, write_text
from segue.cli.fit import Filters, Recipe
from segue.cli.inputs import chosen_validation, read_source
from segue.cli.options import (
    AsJson,
    Force,
    LogColumns,
    LogSource,
    command_line,
    number,
    whole_number,
)
from segue.cli.output import note, print_json, print_table, say
from segue.config import preset_text
from segue.errors import ConfigError, OutputError
from segue.locks import locked

if TYPE_CHECKING:
    from segue.tuning.search import Found

EXAMPLE = "tuned.toml"


@dataclass(frozen=True)
class SearchOptions:
    """How long to search, and where that is kept."""

    trials: Annotated[
        int,
        typer.Option(
            metavar="N", parser=whole_number, help="Trials, earlier ones of the study too."
        ),
    ] = 20
    minutes: Annotated[
        float, typer.Option(metavar="M", parser=number, help="The time for this search.")
    ] = 60.0
    study: Annotated[
        Path, typer.Option(metavar="FILE", help="The SQLite file of all trials, to go on from.")
    ] = Path("tune.db")
    out: Annotated[Path, typer.Option(metavar="FILE", help="The preset file to write.")] = Path(
        EXAMPLE
    )


def tune(
    source: LogSource,
    options: SearchOptions,
    recipe: Recipe,
    columns: LogColumns,
    filters: Filters,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Search for the settings of a preset that validate best on a log, and write a preset file.

    The preset itself is tried first, so that what is found validates as well or better. A search
    that was stopped goes on with the same command. The test part is not looked at.
    """
    try:
        from segue.tuning.search import Budget
        from segue.tuning.search import tune as search
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the search needs the module {error.name!r}; pip install 'segue[tune]'"
        ) from None

    budget = Budget(options.trials, options.minutes)
    if options.out.suffix != ".toml":
        raise OutputError(f"{options.out} is no preset file; name a .toml file, such as {EXAMPLE}")
    if options.out.resolve() == Path(recipe.preset).resolve():
        raise OutputError(f"--out {options.out} is the preset searched; name another file")
    refuse_taken(options.out, EXAMPLE, force=force)
    recipe.refuse_moments()
    config = recipe.config()
    log, catalogue = read_source(source, columns)
    split = recipe.divided(filters.apply(log, config.training.seed))
    validation = chosen_validation(split, recipe.validation_users, config.training.seed)
    note(*split.notes)
    with locked(options.out):
        found = search(
            split,
            preset=config,
            budget=budget,
            study=options.study,
            validation=validation,
            items=catalogue,
            tell=note,
        )
        write_text(options.out, preset_text(found.config))
    chosen = replace(recipe, preset=str(options.out), settings=None)
    more = replace(options, trials=2 * options.trials)
    commands = {
        "fit": command_line("fit", source, chosen, columns, filters, out="RUN"),
        "go_on": command_line("tune", source, more, recipe, columns, filters, force=True),
    }
    if as_json:
        print_json(_document(found, options.out, commands))
    else:
        _print_found(found, options.out, commands)


def _document(found: "Found", out: Path, commands: Mapping[str, str]) -> dict[str, Any]:
    return {
        "metric": "ndcg@10",
        "part": "validation",
        "default": found.default,
        "best": found.best,
        "changes": {name: list(pair) for name, pair in found.changes.items()},
        "finished": found.finished,
        "pruned": found.pruned,
        "is_time_up": found.is_time_up,
        "preset": str(out),
        "commands": dict(commands),
    }


def _print_found(found: "Found", out: Path, commands: Mapping[str, str]) -> None:
    ended = ", when the time was up" if found.is_time_up else ""
    say(f"{found.finished} trials finished and {found.pruned} were pruned{ended}.\n")
    if found.changes:
        rows = [(name, *pair) for name, pair in found.changes.items()]
        print_table(["", "preset", "best"], [("NDCG@10", found.default, found.best), *rows])
    else:
        say(f"Nothing validated better than the preset itself: NDCG@10 {found.default:.4f}.")
    say("\nNDCG@10 is that of the validation part; the test part was not looked at.")
    say(f"The preset is in {out}.\n")
    say("Next, to measure it once on the test part, or to search on:")
    say(*(f"  {each}" for each in commands.values()))
