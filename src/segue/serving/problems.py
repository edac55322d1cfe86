"""What a caller is told when it goes wrong: RFC 9457 problem details."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
DEFECT = "a defect of segue; the server's log has the cause"


class Fault(BaseModel):
    """Where a request is wrong, and how."""

    where: str
    message: str


class ProblemDetails(BaseModel):
    """RFC 9457. `type` is about:blank: the status says what kind of problem it is."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[Fault] | None = None


class ProblemError(Exception):
    """Ends a request with a status and a reason that the caller may read."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Fault] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors

    def response(self) -> Response:
        """The answer."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [fault.model_dump() for fault in self.errors]
        return Response(
            json.dumps(document), self.status, headers=self.headers, media_type=MEDIA_TYPE
        )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of an operation, for its OpenAPI description."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def answer_with_problems(app: FastAPI) -> None:
    """Have every error of the app answered by problem details."""

    @app.exception_handler(ProblemError)
    async def problem(_: Request, error: ProblemError) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return ProblemError(error.status_code, str(error.detail), headers=error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def unfit(_: Request, error: RequestValidationError) -> Response:
        return invalid(error.errors()).response()


def invalid(errors: Sequence[Any]) -> ProblemError:
    """400 for what is no JSON, 422 for JSON that is no such request, from pydantic's errors."""
    if any(error["type"] == "json_invalid" for error in errors):
        return ProblemError(400, "the body is no JSON; send one JSON document in UTF-8")
    faults = [
        Fault(where="/".join(map(_shown, error["loc"])), message=_shown(error["msg"]))
        for error in errors[:MAX_ERRORS]
    ]
    first = f"{faults[0].where}: {faults[0].message}"
    more = f", and {len(errors) - 1:,} more" if len(errors) > 1 else ""
    return ProblemError(422, f"the request does not fit: {first}{more}", errors=faults)


def _shown(part: object) -> str:
    text = str(part).removeprefix("Value error, ")
    return text if len(text) <= 200 else f"{text[:200]}…"
