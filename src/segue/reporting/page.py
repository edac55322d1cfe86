"""A report's document drawn as one HTML file that needs nothing else: no script, no network."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from segue.evaluation.comparison import COMPARED
from segue.reporting.charts import Bar, Point, bar_chart, line_chart, scatter

Section = Mapping[str, Any]
Cell = str | int | float | None

LOSSES = ("loss", "val_loss")


def page(document: Mapping[str, Any]) -> str:
    """The page of a document that `document.describe` made; whatever it holds is escaped."""
    title = f"Report on {document['run']}"
    style = files("segue.reporting").joinpath("page.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{name}">{escape(head)}</a>' for name, (head, _) in SECTIONS.items())
    body = "".join(_section(name, document[name]) for name in SECTIONS)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f'<header><h1>{escape(title)}</h1><p class="faint">Made by segue '
        f"{escape(document['segue'])}.</p></header>"
        f"<nav>{links}</nav><main>{body}</main></body></html>\n"
    )


def _section(name: str, section: Section) -> str:
    head, draw = SECTIONS[name]
    missing = section.get("missing")
    content = f'<p class="missing">{escape(missing)}</p>' if missing else draw(section)
    return f'<section id="{name}"><h2>{escape(head)}</h2>{content}</section>'


def _headline(section: Section) -> str:
    rows: list[list[Cell]] = []
    for name, system in section["systems"].items():
        cells: list[Cell] = [name]
        for metric in COMPARED:
            low, high = system["intervals"][metric]
            cells.append(f"{system['metrics'][metric]:.4f} ({low:.4f} to {high:.4f})")
        rows.append(cells)
    verdicts = "".join(f"<li>{escape(each['verdict'])}</li>" for each in section["differences"])
    others = {
        name: [system["metrics"][name] for system in section["systems"].values()]
        for name in section["systems"][section["reference"]]["metrics"]
    }
    return (
        _text(
            f"{section['users']:,} users of the split {section['split']}, "
            f"{section['candidates']:,} candidates, {section['protocol']} ranking; 95% intervals."
        )
        + _table(["", *(metric.upper() for metric in COMPARED)], rows)
        + f"<ul>{verdicts}</ul>"
        + "".join(_text(note) for note in section["notes"])
        + _details(
            "All metrics",
            _table(
                ["", *section["systems"]],
                [[name.upper(), *values] for name, values in others.items()],
            ),
        )
    )


def _beyond(section: Section) -> str:
    systems = section["systems"]
    names = list(next(iter(systems.values())))
    rows = [[name, *(system[name] for system in systems.values())] for name in names]
    return _text(
        f"Of each user's top {section['k']}. Novelty in bits; popularity in training interactions; "
        f"diversity is 1 - cosine. The formulas are in docs/evaluation.md."
    ) + _table(["", *systems], rows)


def _curves(section: Section) -> str:
    epochs = section["epochs"]
    best = section["best_epoch"]
    marked = (float(best), f"best: {best}") if best else None
    groups = {"Loss by epoch": LOSSES, "Validation NDCG@10 by epoch": ("ndcg@10",)}
    drawn = ""
    for title, names in groups.items():
        series = {
            name: [(float(each["epoch"]), float(each[name])) for each in epochs if name in each]
            for name in names
        }
        present = {name: line for name, line in series.items() if line}
        if present:
            drawn += _figure(line_chart(title, present, "epoch", marked), title)
    columns: list[str] = list(dict.fromkeys(name for each in epochs for name in each))
    rows = [[each.get(name) for name in columns] for each in epochs]
    return drawn + _details("The curves as a table", _table(columns, rows))


def _slices(section: Section) -> str:
    grouped: dict[str, list[Section]] = {}
    for each in section["slices"]:
        grouped.setdefault(f"NDCG@10 by {each['by']}", []).append(each)
    drawn = "".join(
        _figure(bar_chart(title, [_slice_bar(each) for each in members]), title)
        for title, members in grouped.items()
    )
    rows: list[list[Cell]] = [
        [each["by"], each["group"], each["users"], *each["metrics"].values()]
        for each in section["slices"]
    ]
    table = _table(["by", "group", "users", "HR@10", "NDCG@10"], rows)
    return drawn + _details("The slices as a table", table)


def _slice_bar(each: Section) -> Bar:
    low, high = each["intervals"]["ndcg@10"]
    value = each["metrics"]["ndcg@10"]
    return Bar(each["group"], value, f"{value:.4f}, {each['users']:,} users", (low, high))


def _ranks(section: Section) -> str:
    groups = section["groups"]
    total = sum(each["users"] for each in groups)
    bars = [
        Bar(each["places"], each["users"], f"{each['users']:,} ({each['users'] / total:.1%})")
        for each in groups
    ]
    title = "Users by the place of their target"
    return _figure(bar_chart(title, bars), title)


def _calibration(section: Section) -> str:
    bars = [
        Bar(
            f"predicted {each['predicted']:.2%}",
            each["observed"],
            f"{each['observed']:.2%} came true",
            (each["low"], each["high"]),
            each["predicted"],
        )
        for each in section["bins"]
    ]
    columns = ("predicted", "observed", "low", "high", "predictions")
    title = f"How often the top {section['k']} came true"
    return (
        _text(
            f"The probabilities of the top {section['k']} of {section['users']:,} users, by their "
            f"size in groups of the same number; a dashed line is what was predicted. On average "
            f"{section['predicted']:.2%} were predicted and {section['observed']:.2%} came true; "
            f"the expected calibration error is {section['error']:.2%}."
        )
        + _figure(bar_chart(title, bars), title)
        + _details(
            "The groups as a table",
            _table(columns, [[each[name] for name in columns] for each in section["bins"]]),
        )
    )


def _map(section: Section) -> str:
    points = [Point(**each) for each in section["points"]]
    column = section["column"]
    by = f", by {column}" if column else ""
    shown = (
        f"The {len(points):,} most popular items in the two directions in which their embeddings "
        f"differ most, {section['explained_variance']:.0%} of the variance{by}."
    )
    title = f"The items{by}"
    chart = scatter(title, shown, points, section["labels"])
    rows: list[list[Cell]] = [[each.title, each.label, each.x, each.y] for each in points[:100]]
    return (
        _text(shown)
        + _figure(chart, title)
        + _details("The first 100 as a table", _table(["item", "label", "x", "y"], rows))
    )


def _attention(section: Section) -> str:
    drawn = _text(
        "How the newest item spreads its attention over the history in the last block, averaged "
        "over the heads. Attention is no explanation; segue explain measures influence."
    )
    for each in section["histories"]:
        bars = [
            Bar(item["title"], item["weight"], f"{item['weight']:.1%}") for item in each["items"]
        ]
        title = f"Attention of user {each['user_id']}"
        if each["older_items"]:
            title += f"; {each['older_items']} older items have {each['older_weight']:.1%}"
        drawn += _figure(bar_chart(title, bars), title)
    return drawn


def _examples(section: Section) -> str:
    drawn = ""
    heads = {"good": "Ranked well", "bad": "Ranked badly"}
    for kind, head in heads.items():
        rows: list[list[Cell]] = [
            [
                str(each["user_id"]),
                _history(each),
                " · ".join(each["recommended"]),
                each["truth"],
                each["rank"] or "a miss",
            ]
            for each in section["users"]
            if each["kind"] == kind
        ]
        if rows:
            header = ["user", "history, newest last", "recommended, best first", "truth", "rank"]
            drawn += f"<h3>{head}</h3>{_table(header, rows)}"
    return drawn


def _history(each: Section) -> str:
    older = each["history_length"] - len(each["history"])
    return (f"{older} older · " if older else "") + " · ".join(each["history"])


def _facts(section: Section) -> str:
    rows: list[list[Cell]] = []
    tables = ""
    for name, value in section.items():
        if isinstance(value, Mapping):
            tables += f"<h3>{escape(name)}</h3>" + _table(
                ["", ""], [[*pair] for pair in value.items()]
            )
        elif isinstance(value, list):
            rows.append([name, "; ".join(str(each) for each in value) or "none"])
        else:
            rows.append([name, value])
    return _table(["", ""], rows) + tables


def _reproduce(section: Section) -> str:
    return (
        f"<pre><code>{escape(section['command'])}</code></pre>{_text(section['note'])}"
        f"<h3>preset.toml</h3><pre><code>{escape(section['preset'])}</code></pre>"
    )


SECTIONS: Mapping[str, tuple[str, Callable[[Section], str]]] = {
    "headline": ("How good it is", _headline),
    "beyond": ("What it recommends", _beyond),
    "curves": ("Training", _curves),
    "slices": ("Where it is good", _slices),
    "ranks": ("Ranks", _ranks),
    "calibration": ("Calibration", _calibration),
    "age": ("Age", _slices),
    "map": ("Map of the items", _map),
    "attention": ("Attention", _attention),
    "examples": ("Ten users", _examples),
    "data": ("Data", _facts),
    "protocol": ("Protocol, seeds, versions", _facts),
    "reproduce": ("How to reproduce it", _reproduce),
}


def _text(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _figure(chart: str, caption: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{chart}</figure>"


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    head = f"<thead><tr>{heads}</tr></thead>" if any(header) else ""
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table>{head}<tbody>{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    if isinstance(cell, int | float):
        return f'<td class="number">{_number(cell)}</td>'
    return f"<td>{escape(cell or '')}</td>"


def _number(value: int | float) -> str:
    """Four decimals for what is small, as metrics are; one for what is not; none for a whole."""
    if isinstance(value, int) or value.is_integer():
        return f"{value:,.0f}"
    return f"{value:,.4f}" if abs(value) < 10 else f"{value:,.1f}"
