"""What is printed of a run: its report as tables, and the commands that come next."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.cli.output import Cell, print_table, say, shown_cell

if TYPE_CHECKING:
    from segue.recommender import Recommender

HEADLINE = ("hr@10", "ndcg@10", "mrr")
BY_TRAINING = {
    "trained": "users and items that were trained on",
    "new_users": "users never trained on",
    "new_items": "items never trained on",
}


def print_run(path: Path, recommender: "Recommender") -> None:
    """Where a new run is, how good it is, and what to do with it."""
    say(f"The run is in {path}.\n")
    if recommender.run.report:
        print_headline(recommender.run.report)
        say()
    print_next(path, recommender)


def print_next(path: Path, recommender: "Recommender") -> None:
    """Commands to try on a new run, with a user and an item that it knows."""
    run = recommender.run
    place = _word(path)
    questions = [f"similar {place} {_word(run.vocabulary.ids[int(run.item_counts[1:].argmax())])}"]
    if run.split is not None:
        user = run.split.histories.user_ids[0]
        questions.insert(0, f"recommend {place} --user {_word(user)}")
    if run.report:
        questions.append(f"evaluate {place}")
    say("Next:", *(f"  {_program()} {question}" for question in questions))


def _word(value: Path | str | int) -> str:
    """A word of a command, as it is typed."""
    return shlex.quote(shown_cell(str(value)))


def _program() -> str:
    """How this program is called: by its name where the shell finds it, else by its path."""
    path = Path(sys.argv[0])
    if shutil.which("segue") or path.name != "segue":
        return "segue"
    return shlex.quote(os.path.relpath(path))


def print_headline(report: Mapping[str, Any]) -> None:
    """One row for the model, with 95% intervals, and one for each baseline."""
    _print_origin(report)
    rows: list[list[Cell]] = [["model", *(_with_interval(report, name) for name in HEADLINE)]]
    for baseline, metrics in report["baselines"].items():
        rows.append([baseline, *(f"{metrics[name]:.4f}" for name in HEADLINE)])
    print_table(["", *(name.upper() for name in HEADLINE)], rows)
    _print_notes(report)


def print_report(report: Mapping[str, Any]) -> None:
    """One row for each metric: the model, its 95% interval, and every baseline."""
    _print_origin(report)
    baselines = report["baselines"]
    rows: list[list[Cell]] = []
    for name, value in report["metrics"].items():
        low, high = report["intervals"][name]
        others = (metrics[name] for metrics in baselines.values())
        rows.append([name.upper(), value, f"{low:.4f} to {high:.4f}", *others])
    print_table(["", "model", "95% interval", *baselines], rows)
    _print_by_training(report)
    _print_notes(report)


def _print_by_training(report: Mapping[str, Any]) -> None:
    """The figures apart, where anything that was never trained on is asked for."""
    groups = report["by_training"]
    if groups["trained"]["targets"] == report["targets"]:
        return
    rows: list[list[Cell]] = []
    for name, label in BY_TRAINING.items():
        if not groups[name]["targets"]:
            continue
        # New items are misses for what knows no content.
        if name != "new_items" or any(groups[name]["metrics"].values()):
            metrics, baselines = groups[name]["metrics"], groups[name]["baselines"]
            rows.append([label, groups[name]["targets"], *(metrics[each] for each in HEADLINE)])
            rows += [
                [f"  {baseline}", None, *(own[each] for each in HEADLINE)]
                for baseline, own in baselines.items()
            ]
    say()
    print_table(["", "targets", *(name.upper() for name in HEADLINE)], rows)


def _print_origin(report: Mapping[str, Any]) -> None:
    say(
        f"{report['part']} part of the split {report['split']}: {_asked(report)}, "
        f"{report['candidates']:,} candidates, {report['protocol']} ranking"
    )


def _asked(report: Mapping[str, Any]) -> str:
    """Whom the figures are of. Reports of older runs count users only."""
    users, targets = report["users"], report.get("targets", report["users"])
    return f"{users:,} users" if users == targets else f"{targets:,} targets of {users:,} users"


def _with_interval(report: Mapping[str, Any], name: str) -> str:
    low, high = report["intervals"][name]
    return f"{report['metrics'][name]:.4f} ({low:.4f} to {high:.4f})"


def _print_notes(report: Mapping[str, Any]) -> None:
    for line in report["notes"]:
        say(f"note: {line}")
