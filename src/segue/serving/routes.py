"""The operations under /v1."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.convertors import Convertor, register_url_convertor

from segue.errors import DataError
from segue.recommender import MAX_K, Id
from segue.serving import schemas
from segue.serving.bodies import MAX_FAULTS, JsonRoute, apart
from segue.serving.limits import MAX_ID_LENGTH
from segue.serving.model import (
    ServedAnswer,
    ServedModel,
    ServedQuestion,
    SimilarQuestion,
    Wanted,
    WhyQuestion,
    shown_id,
)
from segue.serving.problems import ProblemError, documented
from segue.serving.service import LoadError, Search, Service, Written
from segue.serving.stores import Append, Hide, StoredEvent, StoreError, UserEvents
from segue.serving.times import Given

MAX_FOUND = 100
CLASH = "event_id: it is the id of another event, which is kept; give each event an id of its own"
EVERY = (400, 401, 403, 408, 413, 422, 429, 503, 504)
ANSWERED = documented(*EVERY)

ItemId = Annotated[str, Path(max_length=MAX_ID_LENGTH, min_length=1, pattern=r"^[^\x00]+$")]
UserId = Annotated[str, Path(max_length=MAX_ID_LENGTH, min_length=1, pattern=r"^[^\x00]+$")]
KeptItemId = Annotated[
    str, Path(max_length=MAX_ID_LENGTH, min_length=1, pattern=schemas.WITHOUT_CONTROLS)
]


class _Anything(Convertor[str]):
    """An id in a path: whatever it holds, slashes and line breaks included."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any", _Anything())
router = APIRouter(prefix="/v1", route_class=JsonRoute)


def service_of(request: Request) -> Service:
    """The service behind the app."""
    service: Service = request.app.state.service
    return service


@router.post(
    "/recommendations",
    response_model=schemas.Recommendations,
    response_model_exclude_none=True,
    responses=ANSWERED,
)
async def recommend(asked: schemas.RecommendationRequest, request: Request) -> Response:
    """Recommend items to a history or a user."""
    started = time.perf_counter()
    service = service_of(request)
    (answer,) = await service.ask(await _questions(service, [asked]))
    return _json(_ranked(request, answer, started) | {"strategy": answer.strategy})


@router.post(
    "/recommendations:batch",
    response_model=schemas.Batch,
    response_model_exclude_none=True,
    responses=ANSWERED,
)
async def recommend_batch(asked: schemas.BatchRequest, request: Request) -> Response:
    """Recommend to several histories or users, by one model."""
    started = time.perf_counter()
    service = service_of(request)
    answers = await service.ask(await _questions(service, asked.requests))
    results = [
        _ranked(request, answer, started) | {"strategy": answer.strategy} for answer in answers
    ]
    return _json(
        {
            "request_id": request.state.request_id,
            "model_version": answers[0].model_version,
            "results": results,
            "took_ms": _since(started),
        }
    )


@router.post(
    "/explanations",
    response_model=schemas.ServedExplanation,
    responses=ANSWERED | documented(404),
)
async def explain(asked: schemas.ExplanationRequest, request: Request) -> Response:
    """Tell what an item's score would be without each item of a history."""
    started = time.perf_counter()
    service = service_of(request)
    (events,) = await _events_of(service, [asked])
    question = WhyQuestion(_question(asked, Wanted(), events), asked.item_id)
    explained = await service.explain(question)
    why = explained.explanation
    influences = [vars(each) | {"item_id": shown_id(each.item_id)} for each in why.influences]
    return _json(
        {
            "request_id": request.state.request_id,
            "model_version": explained.model_version,
            "item_id": shown_id(why.item_id),
            "title": why.title,
            "score": why.score,
            "influences": influences,
            "unknown_items": [shown_id(each) for each in why.unknown_items],
            "note": why.note,
            "took_ms": _since(started),
        }
    )


@router.post(
    "/items/{item_id:any}/similar",
    response_model=schemas.SimilarItems,
    response_model_exclude_none=True,
    responses=ANSWERED | documented(404),
)
async def similar_with_wishes(
    item_id: ItemId, asked: schemas.SimilarRequest, request: Request
) -> Response:
    """Find the items most like one, among those allowed."""
    return await _similar(request, item_id, _wanted(asked))


@router.get(
    "/items/{item_id:any}/similar",
    response_model=schemas.SimilarItems,
    response_model_exclude_none=True,
    responses=ANSWERED | documented(404),
)
async def similar(
    item_id: ItemId,
    request: Request,
    k: Annotated[int, Query(ge=1, le=MAX_K)] = 10,
    parts: Annotated[list[schemas.Part] | None, Query(alias="return", max_length=2)] = None,
) -> Response:
    """Find the items most like one."""
    return await _similar(request, item_id, Wanted(k, parts=frozenset(parts or ())))


@router.get("/items", response_model=schemas.Items, responses=documented(*EVERY))
async def find_items(
    request: Request,
    query: Annotated[str, Query(max_length=MAX_ID_LENGTH)] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_FOUND)] = 10,
) -> Response:
    """Search items by title, whatever its case, accents and order of words."""
    return _json(vars(await service_of(request).search(Search(query, limit))))


@router.get("/items/{item_id:any}", response_model=schemas.Item, responses=documented(*EVERY, 404))
async def show_item(item_id: ItemId, request: Request) -> Response:
    """Tell what is known of an item."""
    model = service_of(request).model
    return _json(model.items([model.dense_id(item_id)])[0])


@router.post("/events", response_model=schemas.EventsResult, responses=documented(*EVERY, 409))
async def add_events(asked: schemas.EventsRequest, request: Request) -> Response:
    """Remember events. Those accepted are on disk, and the next answer knows them."""
    service = service_of(request)
    taken, rejected = await apart(_checked, service.model, asked.events)
    appended = await service.append(Append(list(taken.values()))) if taken else Written(0)
    places = list(taken)
    for place in appended.clashing:
        rejected[places[place]] = CLASH
    counts = {
        "accepted": appended.count,
        "duplicates": len(taken) - appended.count - len(appended.clashing),
    }
    for outcome, count in (*counts.items(), ("rejected", len(rejected))):
        service.metrics.events.labels(outcome).inc(count)
    reasons = [{"index": index, "reason": reason} for index, reason in sorted(rejected.items())]
    return _json(counts | {"rejected": reasons})


@router.get(
    "/users/{user_id:any}/history",
    response_model=schemas.History,
    responses=documented(*EVERY, 404),
)
async def show_history(user_id: UserId, request: Request) -> Response:
    """Show a user's history: the run's and the stored events, merged."""
    service = service_of(request)
    model = service.model
    (events,) = await service.events_of([user_id])
    history = await asyncio.to_thread(model.history, user_id, events)
    if history is None:
        raise ProblemError(404, "neither the model's log nor the stored events have this user")
    items = [
        {"item_id": item, "timestamp": None if at is None else model.clock.shown(at)}
        for item, at in history
    ]
    return _json({"user_id": user_id, "items": items})


@router.delete(
    "/users/{user_id:any}/history", response_model=schemas.Erased, responses=documented(*EVERY, 409)
)
async def erase_history(user_id: UserId, request: Request) -> Response:
    """Erase a user; needs the admin key. Only a keyed hash stays, to ignore the model's copy."""
    _check_admin(request)
    erased = await service_of(request).erase(user_id)
    return _json({"user_id": user_id, "events": erased.count, "is_pending": erased.has_remains})


@router.get("/hidden", response_model=schemas.HiddenItems, responses=documented(*EVERY))
async def show_hidden(request: Request) -> Response:
    """Show which items are hidden; needs the admin key."""
    _check_admin(request)
    return _json({"item_ids": sorted(service_of(request).hidden)})


@router.put(
    "/hidden/{item_id:any}",
    response_model=schemas.HiddenItem,
    responses=documented(*EVERY, 409),
)
async def hide(item_id: KeptItemId, request: Request) -> Response:
    """Hide an item from all answers of this model and of those to come; needs the admin key."""
    return await _hide(request, Hide(item_id, is_hidden=True))


@router.delete(
    "/hidden/{item_id:any}",
    response_model=schemas.HiddenItem,
    responses=documented(*EVERY, 409),
)
async def show_again(item_id: ItemId, request: Request) -> Response:
    """Show an item again; needs the admin key."""
    return await _hide(request, Hide(item_id, is_hidden=False))


async def _hide(request: Request, hide: Hide) -> Response:
    _check_admin(request)
    await service_of(request).hide(hide)
    return _json(vars(hide))


@router.get("/model", response_model=schemas.ModelInfo, responses=documented(*EVERY))
async def show_model(request: Request) -> Response:
    """Tell which model answers, and how good it was found."""
    return _json(about(service_of(request).model))


@router.post("/admin/reload", response_model=schemas.Reloaded, responses=documented(*EVERY, 409))
async def reload(request: Request) -> Response:
    """Read the run again; needs the admin key. A bad run is refused, and the old model stays."""
    _check_admin(request)
    try:
        before, now = await service_of(request).reload()
    except (LoadError, StoreError) as error:
        raise ProblemError(422, f"the run is refused, the model stays: {error}") from None
    return _json({"previous_version": before, "model_version": now})


def _check_admin(request: Request) -> None:
    """Raises: ProblemError: 403, 429."""
    address = request.client.host if request.client else ""
    request.app.state.guard.check_admin(request.headers, address)


def about(model: ServedModel) -> dict[str, Any]:
    """What a model is, as JSON."""
    run = model.recommender.run
    return {
        "model_version": model.version,
        "encoder": run.config.model.encoder,
        "num_items": model.vocabulary.num_items,
        "num_users": model.histories.num_users if model.histories else 0,
        "max_length": run.config.model.max_length,
        "fields": model.catalogue.columns,
        "loaded_at": model.loaded_at,
        "report": dict(run.report),
    }


async def _similar(request: Request, item_id: str, wanted: Wanted) -> Response:
    started = time.perf_counter()
    (answer,) = await service_of(request).ask([SimilarQuestion(wanted, item_id)])
    return _json(_ranked(request, answer, started))


async def _questions(
    service: Service, requests: Sequence[schemas.RecommendationRequest]
) -> list[ServedQuestion]:
    events = await _events_of(service, requests)
    return [
        _question(asked, _wanted(asked), stored, asked.exclude_seen)
        for asked, stored in zip(requests, events, strict=True)
    ]


async def _events_of(
    service: Service, requests: Sequence[schemas.Somebody]
) -> list[UserEvents | None]:
    """What the store has of each request's user, read at once; None where a history is given."""
    users = list({str(asked.user_id): None for asked in requests if asked.history is None})
    events = dict(zip(users, await service.events_of(users), strict=True))
    return [None if asked.history is not None else events[str(asked.user_id)] for asked in requests]


def _question(
    asked: schemas.Somebody,
    wanted: Wanted,
    events: UserEvents | None,
    exclude_seen: bool | None = None,
) -> ServedQuestion:
    history, times = (None, None) if asked.history is None else _met(asked.history)
    return ServedQuestion(
        wanted,
        history,
        times,
        user_id="" if events is None else str(asked.user_id),
        events=events,
        exclude_seen=exclude_seen,
        at=asked.at,
    )


def _met(
    history: Sequence[Id | schemas.Interaction],
) -> tuple[Sequence[Id], Sequence[Given] | None]:
    """The ids of a history, and their times where it has them, which it then has for all."""
    if schemas.is_of_ids(history):
        return history, None
    ids = [each.item_id if isinstance(each, schemas.Interaction) else each for each in history]
    times = [
        each.timestamp
        for each in history
        if isinstance(each, schemas.Interaction) and each.timestamp is not None
    ]
    return ids, times or None


def _wanted(asked: schemas.Wish) -> Wanted:
    where = asked.filter.compiled() if asked.filter else None
    return Wanted(asked.k, asked.allow, asked.deny, where, frozenset(asked.parts))


def _json(document: Mapping[str, Any]) -> Response:
    return Response(to_json(document, inf_nan_mode="null"), media_type="application/json")


def _checked(
    model: ServedModel, events: Sequence[object]
) -> tuple[dict[int, StoredEvent], dict[int, str]]:
    """The events that can be kept, and why the others cannot, by their places."""
    taken: dict[int, StoredEvent] = {}
    rejected: dict[int, str] = {}
    for index, each in enumerate(events):
        try:
            taken[index] = _event(model, each)
        except (ValidationError, DataError) as error:
            rejected[index] = _reason(error)
    return taken, rejected


def _event(model: ServedModel, given: object) -> StoredEvent:
    event = schemas.Event.model_validate(given)
    return StoredEvent(
        event.event_id,
        str(event.user_id),
        str(event.item_id),
        model.clock.kept(event.timestamp),
        event.weight,
    )


def _reason(error: ValidationError | DataError) -> str:
    if isinstance(error, DataError):
        return str(error)
    if error.error_count() > MAX_FAULTS:
        return f"{error.error_count():,} faults, such as fields that do not exist"
    faults: Sequence[Any] = error.errors(include_url=False, include_input=False)
    return f"{'/'.join(map(str, faults[0]['loc']))}: {faults[0]['msg']}"


def _ranked(request: Request, answer: ServedAnswer, started: float) -> dict[str, Any]:
    ranked = {
        "request_id": request.state.request_id,
        "model_version": answer.model_version,
        "unknown_items": answer.unknown_items,
        "items": answer.items,
        "took_ms": _since(started),
    }
    return ranked | ({"reason": answer.reason} if answer.reason else {})


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
