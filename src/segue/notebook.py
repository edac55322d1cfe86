"""What a notebook shows of a recommender and of a report."""

from collections.abc import Mapping
from html import escape
from typing import Any

from segue.artifact import Run

HEADLINE = ("hr@10", "ndcg@10", "mrr")


class Report(dict[str, Any]):
    """The report of an evaluation: a dict, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        return report_html(self)


def recommender_html(run: Run) -> str:
    """What a run knows, and how good it is."""
    model = run.config.model
    facts = [f"{run.vocabulary.num_items:,} items", f"{model.encoder}, width {model.width}"]
    if run.split is not None:
        histories = run.split.histories
        facts.insert(0, f"{histories.num_interactions:,} interactions")
        facts.insert(1, f"{histories.num_users:,} users")
    heading = (
        f"<p><b>segue.Recommender</b> {escape(run.config.name)}: {escape(', '.join(facts))}</p>"
    )
    return heading + (report_html(run.report) if run.report else "")


def report_html(report: Mapping[str, Any]) -> str:
    """One row for the model, with its 95% intervals, and one for each baseline; the notes below."""
    head = "".join(f"<th>{name.upper()}</th>" for name in HEADLINE)
    rows = [_row("model", [_with_interval(report, name) for name in HEADLINE])]
    for baseline, metrics in report["baselines"].items():
        rows.append(_row(baseline, [f"{metrics[name]:.4f}" for name in HEADLINE]))
    notes = "".join(f"<li>{escape(note)}</li>" for note in report["notes"])
    caption = (
        f"{report['part']} part, {report['targets']:,} targets, "
        f"{report['candidates']:,} candidates, {report['protocol']} ranking"
    )
    return (
        f"<table><caption>{escape(caption)}</caption><tr><th></th>{head}</tr>{''.join(rows)}"
        f"</table><ul>{notes}</ul>"
    )


def _with_interval(report: Mapping[str, Any], name: str) -> str:
    low, high = report["intervals"][name]
    return f"{report['metrics'][name]:.4f} ({low:.4f} to {high:.4f})"


def _row(name: str, cells: list[str]) -> str:
    return f"<tr><th>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
