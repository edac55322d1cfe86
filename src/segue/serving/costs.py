"""What a question costs before it is let in, counted in plain questions.

A plain question is a short history without conditions: about a millisecond of the thread that
computes. The figures below were measured on the same machine.
"""

from segue.retrieval.filters import Condition, Filter
from segue.serving.model import (
    ServedModel,
    ServedQuestion,
    SimilarQuestion,
    Wanted,
    WhyQuestion,
)

# How much of each costs as much as a plain question.
LISTED_IDS = 4_096
STORED_EVENTS = 256
TIMES = 512
TIMES_AS_TEXT = 128
SCANNED_ITEMS = 100_000
COMPARED_ITEMS = 200_000
SEARCHED_ITEMS = 10_000
DESCRIBED_ITEMS = 256

AnyQuestion = ServedQuestion | SimilarQuestion | WhyQuestion


def cost_of(question: AnyQuestion, model: ServedModel) -> int:
    """What a question costs, at least 1."""
    if isinstance(question, WhyQuestion):
        return _cost_of_why(question, model)
    cost = 1.0 + _cost_of_wanted(question.wanted, model.vocabulary.num_items)
    if isinstance(question, ServedQuestion):
        cost += _cost_of_history(question)
    return int(cost)


def _cost_of_why(question: WhyQuestion, model: ServedModel) -> int:
    """A window is encoded for each item that the model looks at; a user may have as many."""
    most = model.retriever.max_length
    history = question.of.history
    windows = 1 + (most if history is None else min(len(history), most))
    return int(windows + _cost_of_history(question.of))


def _cost_of_wanted(wanted: Wanted, num_items: int) -> float:
    """Conditions look at every item; with a list of what is allowed, a search is its own."""
    listed = len(wanted.deny) + len(wanted.allow or ())
    is_alone = wanted.allow is not None or wanted.where is not None
    return (
        listed / LISTED_IDS
        + sum(_cost_of_condition(each, num_items) for each in _conditions(wanted.where))
        + (num_items / SCANNED_ITEMS if is_alone else 0)
        + (wanted.k / DESCRIBED_ITEMS if "metadata" in wanted.parts else 0)
    )


def _cost_of_history(question: ServedQuestion) -> float:
    """Stored events are merged with the run's interactions one by one, times are parsed."""
    num_texts = sum(isinstance(each, str) for each in question.times or ())
    num_events = len(question.events.items) if question.events else 0
    return (
        len(question.history or ()) / LISTED_IDS
        + len(question.times or ()) / TIMES
        + num_texts / TIMES_AS_TEXT
        + num_events / STORED_EVENTS
    )


def _conditions(where: Filter | None) -> list[Condition]:
    return [*where.all_of, *where.any_of, *where.none_of] if where else []


def _cost_of_condition(condition: Condition, num_items: int) -> float:
    """A value is looked for in every item; to look for a piece of text takes far longer."""
    return num_items / (SEARCHED_ITEMS if condition.op == "contains" else COMPARED_ITEMS)
