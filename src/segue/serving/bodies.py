"""Bodies read straight into their model: no parsing to objects first, no dependencies to solve."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from segue.serving.problems import ProblemError, invalid

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")

PLACE = "body"
# A larger body is read by a thread, so that meanwhile others are answered. One thread: bodies that
# wait take less memory than bodies that are read.
MAX_INLINE_BYTES = 2**14
# Fields that do not exist are faults, of which a body of 1 MiB has room for 100,000.
MAX_FAULTS = 1_000
_READER = ThreadPoolExecutor(1, "segue-bodies")


class JsonRoute(APIRoute):
    """Handles operations on a body and nothing else; leaves others to FastAPI.

    FastAPI makes objects of the JSON, a model of the objects and a search of its own for what else
    the operation may need, in four times the time. What it writes into the OpenAPI document stays.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler: from a request to the answer of the operation."""
        model = _body_of(self.endpoint)
        return _reading(model, self.endpoint) if model else super().get_route_handler()


def _body_of(endpoint: Callable[..., Any]) -> type[BaseModel] | None:
    """The model of an operation's body, if it takes that and the request only."""
    kinds = [each.annotation for each in inspect.signature(endpoint).parameters.values()]
    models = [each for each in kinds if inspect.isclass(each) and issubclass(each, BaseModel)]
    return models[0] if len(kinds) == 2 and len(models) == 1 and kinds[1] is Request else None


def _reading(
    model: type[BaseModel], endpoint: Callable[..., Coroutine[Any, Any, Response]]
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def handle(request: Request) -> Response:
        _check_type(request.headers.get("content-type", ""))
        body = await request.body()
        if len(body) <= MAX_INLINE_BYTES:
            asked = read(model, body)
        else:
            asked = await apart(read, model, body)
        return await endpoint(asked, request)

    return handle


async def apart(function: Callable[..., R], *arguments: object) -> R:
    """What a function of a body gives, called by the thread that reads bodies."""
    return await asyncio.get_running_loop().run_in_executor(_READER, function, *arguments)


def read(model: type[M], body: bytes) -> M:
    """The request that a body holds.

    Raises:
        ProblemError: 400 where it is no JSON, 422 where it does not fit.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > MAX_FAULTS:
            raise ProblemError(
                422,
                f"the request has {error.error_count():,} faults, too many to list, such as fields "
                f"that do not exist; compare it with the description at /docs",
            ) from None
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise invalid([{**each, "loc": (PLACE, *each["loc"])} for each in faults]) from None


def _check_type(content_type: str) -> None:
    """Refuse what is not sent as JSON: browsers send other types to foreign sites unasked.

    Raises:
        ProblemError: 422.
    """
    subtype = content_type.partition(";")[0].strip().lower().removeprefix("application/")
    if subtype != "json" and not subtype.endswith("+json"):
        raise ProblemError(
            422, "the body is not said to be JSON; send it with Content-Type: application/json"
        )
