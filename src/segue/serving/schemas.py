"""What comes in and what goes out, checked strictly: no unknown field, no guessed type.

Every list that comes in has a greatest length and is read up to its first fault only: a fault is an
object, and a body of 1 MiB has room for a million of them.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeGuard

from pydantic import BaseModel, ConfigDict, Field, model_validator

from segue.data.roles import MAX_WEIGHT
from segue.recommender import MAX_K
from segue.retrieval.filters import Condition, Filter, Operator
from segue.serving.limits import (
    MAX_CONDITIONS,
    MAX_EVENTS,
    MAX_HISTORY,
    MAX_ID_LENGTH,
    MAX_INTEGER,
    MAX_REQUESTS,
    MAX_VALUES,
)

# PostgreSQL's text cannot hold the letter U+0000.
Text = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[^\x00]+$")]
Whole = Annotated[int, Field(ge=-MAX_INTEGER - 1, le=MAX_INTEGER)]
Id = Text | Whole
# What is kept can be shown in a line and sent in a path; ids that a log has may hold anything else.
WITHOUT_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]+$"
KeptText = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH, pattern=WITHOUT_CONTROLS)]
KeptId = KeptText | Whole
Number = Annotated[float, Field(ge=-MAX_INTEGER - 1, le=MAX_INTEGER)]
Time = Annotated[str, Field(min_length=4, max_length=40)] | Whole | Number
Ids = Annotated[list[Id], Field(max_length=MAX_HISTORY, fail_fast=True)]
Scalar = Annotated[str, Field(max_length=1_000)] | bool | Whole | Number
Part = Literal["score", "metadata"]


class Strict(BaseModel):
    """Refuses unknown fields, wrong types, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Interaction(Strict):
    """An item of a history, with its time."""

    item_id: Id
    timestamp: Time | None = None


class FilterCondition(Strict):
    """One comparison of a field of the items with a value."""

    field: Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
    op: Operator
    value: Scalar | Annotated[list[Scalar], Field(max_length=MAX_VALUES, fail_fast=True)]


Conditions = Annotated[list[FilterCondition], Field(max_length=MAX_CONDITIONS, fail_fast=True)]


class FilterExpression(Strict):
    """All of `all`, any of `any`, none of `not`."""

    all_of: Annotated[Conditions, Field(alias="all")] = []
    any_of: Annotated[Conditions, Field(alias="any")] = []
    none_of: Annotated[Conditions, Field(alias="not")] = []

    @model_validator(mode="after")
    def _bound_conditions(self) -> Self:
        count = len(self.all_of) + len(self.any_of) + len(self.none_of)
        if not count:
            raise ValueError("a filter needs a condition under all, any or not")
        if count > MAX_CONDITIONS:
            raise ValueError(f"a filter may have {MAX_CONDITIONS} conditions in all, got {count}")
        return self

    def compiled(self) -> Filter:
        """The filter as the retrieval takes it."""
        return Filter(*map(_compiled, (self.all_of, self.any_of, self.none_of)))


def _compiled(conditions: list[FilterCondition]) -> list[Condition]:
    return [Condition(each.field, each.op, each.value) for each in conditions]


class Wish(Strict):
    """How many items, of which, and what to tell of them."""

    k: Annotated[int, Field(ge=1, le=MAX_K)] = 10
    allow: Ids | None = None
    deny: Ids = []
    filter: FilterExpression | None = None
    parts: Annotated[list[Part], Field(alias="return", max_length=2, fail_fast=True)] = []


class Somebody(Strict):
    """A user, or a history, oldest item first; a history given wins."""

    user_id: Id | None = None
    history: (
        Annotated[list[Id | Interaction], Field(max_length=MAX_HISTORY, fail_fast=True)] | None
    ) = None
    at: Annotated[
        Time | None, Field(description="When it is asked, as timestamps are given; now by default.")
    ] = None

    @model_validator(mode="after")
    def _refuse_nobody(self) -> Self:
        if self.user_id is None and self.history is None:
            raise ValueError("give a history or a user_id")
        history = self.history or []
        if not is_of_ids(history):
            times = [each.timestamp for each in history if isinstance(each, Interaction)]
            if 0 < len(times) - times.count(None) < len(history):
                raise ValueError("some items of the history have a timestamp and some have none")
        return self


class RecommendationRequest(Wish, Somebody):
    """Items for a user, or for a history, oldest item first; a history given wins."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"history": [1270, 593, 2858], "k": 10, "return": ["score", "metadata"]},
                {
                    "user_id": "42",
                    "filter": {"all": [{"field": "genres", "op": "contains", "value": "Comedy"}]},
                },
            ]
        }
    )

    exclude_seen: bool | None = Field(
        default=None,
        description="Whether to leave out the items of the history; by default as the run does, "
        "which leaves them out unless its users come back to items.",
    )


class ExplanationRequest(Somebody):
    """An item, in the history or not, whose score is to be explained."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"history": [1270, 593, 2858], "item_id": 1196}]}
    )

    item_id: Id


def is_of_ids(history: Sequence[Id | Interaction]) -> TypeGuard[Sequence[Id]]:
    """Whether a history is of ids alone; asked of every request, so that it must be quick."""
    return Interaction not in set(map(type, history))


class BatchRequest(Strict):
    """Several requests, answered together and by one model."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"requests": [{"history": [1270]}, {"user_id": "42"}]}]}
    )

    requests: Annotated[
        list[RecommendationRequest],
        Field(min_length=1, max_length=MAX_REQUESTS, fail_fast=True),
    ]


class SimilarRequest(Wish):
    """Items like one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"k": 10, "return": ["metadata"]}]})


class Event(Strict):
    """A user met an item."""

    event_id: KeptText | None = None
    user_id: KeptId
    item_id: KeptId
    timestamp: Time
    weight: Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)] | None = None


class EventsRequest(Strict):
    """Events; each is checked by itself, so that a bad one does not hold up the others."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {"event_id": "a1", "user_id": "42", "item_id": 1270, "timestamp": 978300760}
                    ]
                }
            ]
        }
    )

    events: Annotated[list[Any], Field(min_length=1, max_length=MAX_EVENTS, fail_fast=True)]


class RankedItem(BaseModel):
    """An item of an answer."""

    item_id: int | str
    rank: int
    score: float | None = None
    metadata: dict[str, Any] | None = None


class SimilarItems(BaseModel):
    """The items most alike first; `reason` says why there are fewer than were asked for."""

    request_id: str
    model_version: str
    unknown_items: list[int | str]
    items: list[RankedItem]
    reason: str | None = None
    took_ms: float


class Recommendations(SimilarItems):
    """The best items first; the most popular ones where the history holds no known item."""

    strategy: Literal["model", "popular"]


class Batch(BaseModel):
    """One answer for each request, in their order."""

    request_id: str
    model_version: str
    results: list[Recommendations]
    took_ms: float


class ServedInfluence(BaseModel):
    """What a place of the history, from 1, the oldest, does to the score.

    `change` is the score without it minus the score: below 0, it speaks for the item.
    """

    place: int
    item_id: int | str
    title: str
    score_without: float
    change: float


class ServedExplanation(BaseModel):
    """An item's score, and what it would be without each known item of the history."""

    request_id: str
    model_version: str
    item_id: int | str
    title: str
    score: float
    influences: list[ServedInfluence]
    unknown_items: list[int | str]
    note: str
    took_ms: float


class Item(BaseModel):
    """What is known of an item."""

    item_id: int | str
    train_interactions: int
    metadata: dict[str, Any]


class Items(BaseModel):
    """Items that a search found, the most popular first."""

    model_version: str
    items: list[Item]


class Rejected(BaseModel):
    """An event that was not taken, by its place in the request."""

    index: int
    reason: str


class EventsResult(BaseModel):
    """What became of the events; those accepted are on disk."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]


class HistoryItem(BaseModel):
    """One interaction of a user; its time is null where the run has none."""

    item_id: int | str
    timestamp: int | float | str | None


class History(BaseModel):
    """A user's interactions, oldest first, at most the newest 10,000."""

    user_id: str
    items: list[HistoryItem]


class Erased(BaseModel):
    """What was erased: the stored events; the run's own copy is ignored from now on.

    `is_pending` says that the database's files still hold them, until nobody reads these.
    """

    user_id: str
    events: int
    is_pending: bool


class HiddenItem(BaseModel):
    """An item that is hidden from all answers, or is not."""

    item_id: str
    is_hidden: bool


class HiddenItems(BaseModel):
    """The items that are hidden, whether the model knows them or not, in order."""

    item_ids: list[str]


class ModelInfo(BaseModel):
    """The model that answers now, and how good it was found."""

    model_version: str
    encoder: str
    num_items: int
    num_users: int
    max_length: int
    fields: list[str]
    loaded_at: str
    report: dict[str, Any]


class Reloaded(BaseModel):
    """The models before and after a reload."""

    previous_version: str
    model_version: str
