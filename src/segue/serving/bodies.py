"""Bodies read straight into their model: no parsing to objects first, no dependencies to solve."""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from segue.serving.problems import ProblemError, invalid

PLACE = "body"


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
        try:
            asked = model.model_validate_json(await request.body())
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            raise invalid([{**each, "loc": (PLACE, *each["loc"])} for each in faults]) from None
        return await endpoint(asked, request)

    return handle


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
