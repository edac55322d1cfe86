"""`segue recommend` and `segue similar`: what a run answers."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segue.cli.options import AsJson, Force, IdColumns, K, RunPath
from segue.cli.output import note, print_json, print_table, say
from segue.errors import RequestError

if TYPE_CHECKING:
    import polars as pl

    from segue.data.vocabulary import Vocabulary
    from segue.recommender import Answer, Recommender


@dataclass(frozen=True)
class Question:
    """Whom to recommend to: exactly one of a history, a user and a file of users."""

    history: Annotated[
        str | None, typer.Option(metavar="ID,ID,...", help="A history, the oldest item first.")
    ] = None
    user: Annotated[str | None, typer.Option(metavar="ID", help="A user of the run's log.")] = None
    source: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="A Parquet log: recommend to all its users."),
    ] = None
    target: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="The Parquet file to write for --input."),
    ] = None

    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The moment at which it is asked: ISO 8601, or a number in the log's unit; "
            "by default now, where the log's times are moments.",
        ),
    ] = None
    at_col: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="With --input: the column with the moment of each user."
        ),
    ] = None

    def check(self) -> None:
        """Refuse several questions at once, and none.

        Raises:
            RequestError: Not exactly one is asked.
        """
        asked = {"--history": self.history, "--user": self.user, "--input": self.source}
        given = [option for option, value in asked.items() if value is not None]
        if len(given) != 1:
            raise RequestError(
                f"{' and '.join(given) or 'no question'}: give exactly one of {', '.join(asked)}"
            )
        if (self.source is None) != (self.target is None):
            raise RequestError("--input and --output belong together; give both or neither")
        if self.at_col is not None and self.source is None:
            raise RequestError("--at-col names a column of --input; give --at without --input")
        if self.at_col is not None and self.at is not None:
            raise RequestError("--at and --at-col exclude each other; give one of them")

    def moment(self, recommender: "Recommender") -> "str | pl.Expr | None":
        """When it is asked: as given, else now; None where the log's times are no moments."""
        if self.at_col is not None:
            import polars as pl

            return pl.col(self.at_col)
        if self.at is not None or not recommender.run.unit.is_moment:
            return self.at
        return dt.datetime.now(dt.UTC).isoformat()


def recommend(
    run: RunPath,
    question: Question,
    columns: IdColumns,
    k: K = 10,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Recommend to a history, to a user, or to all users of a file.

    Items of the history are left out. Where the run knows no item of a history, it recommends the
    most popular ones and says so. For --input, the histories are those in the file.
    """
    from segue.recommender import Recommender

    question.check()
    recommender = Recommender.load(run)
    at = question.moment(recommender)
    if question.source is not None and question.target is not None:
        from segue.bulk import recommend_file

        summary = recommend_file(
            recommender,
            question.source,
            question.target,
            k,
            at=at,
            force=force,
            on_progress=lambda rows: note(f"{rows:,} recommendations written"),
            **asdict(columns),
        )
        _print_summary(asdict(summary), question.target, as_json)
    elif question.history is not None:
        texts = [text.strip() for text in question.history.split(",") if text.strip()]
        history = _ids(texts, recommender.vocabulary)
        answer = recommender.answer(history, k, at=at)
        _print_answer(answer, len(history), k, as_json)
    else:
        answer = recommender.answer_user(question.user or "", k, at=at)
        _print_answer(answer, 0, k, as_json)


def similar(
    run: RunPath,
    item: Annotated[
        str, typer.Argument(metavar="ITEM", show_default=False, help="The id of an item.")
    ],
    k: K = 10,
    as_json: AsJson = False,
) -> None:
    """List the items most like one.

    They are those whose embeddings have the highest cosine with its own.
    """
    from segue.recommender import Recommender

    recommender = Recommender.load(run)
    (item_id,) = _ids([item], recommender.vocabulary)
    _print_items(recommender.similar(item_id, k), k, {"item_id": item_id}, as_json)


def _ids(texts: Sequence[str], vocabulary: "Vocabulary") -> list[str | int]:
    """Ids as they were typed, of the type of the log's ids where they can be."""
    import polars as pl

    from segue.data.ids import compared_as

    own = compared_as(pl.Series(texts, dtype=pl.String), vocabulary.ids.dtype)
    return [text if each is None else each for text, each in zip(texts, own, strict=True)]


def _print_answer(answer: "Answer", num_given: int, k: int, as_json: bool) -> None:
    """The recommendations, after what was skipped of the items given."""
    from segue.data.checks import shown_names
    from segue.recommender import POPULAR

    unknown = answer.unknown_items
    if unknown:
        names = shown_names(str(each) for each in unknown)
        note(f"skipped {len(unknown)} of {num_given} items, which the run does not know: {names}")
    if answer.strategy == POPULAR:
        note("no known item in the history: these are the most popular items")
    _print_items(answer.items, k, {"strategy": answer.strategy, "unknown_items": unknown}, as_json)


def _print_items(items: "pl.DataFrame", k: int, about: Mapping[str, Any], as_json: bool) -> None:
    """A table of ranked items, or with `as_json` a document that begins with what it is about."""
    if items.height < k:
        note(f"only {items.height} of the {k} items asked for: no others are left")
    columns = [name for name in ("rank", "item_id", "title", "score") if name in items.columns]
    items = items.select(columns)
    if as_json:
        print_json({**about, "items": items.to_dicts()})
    else:
        print_table(columns, items.rows())


def _print_summary(summary: Mapping[str, int], target: Path, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    say(f"{summary['rows']:,} recommendations for {summary['users']:,} users are in {target}.")
    if summary["unknown_items"]:
        note(f"left out {summary['unknown_items']:,} interactions with items unknown to the run")
    if summary["popular_users"]:
        note(f"{summary['popular_users']:,} users without a known item: the most popular items")
