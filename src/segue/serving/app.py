"""The app: operations, pages, errors and the gate put together."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi

from segue import __version__
from segue.errors import DataError, RequestError
from segue.serving import pages, routes
from segue.serving.batcher import ClosedError, FailedError, QueueFullError
from segue.serving.gate import Gate
from segue.serving.guard import Guard
from segue.serving.head import HeadAsGet
from segue.serving.model import UnknownItemError
from segue.serving.problems import (
    DEFECT,
    ProblemDetails,
    ProblemError,
    answer_with_problems,
    documented,
)
from segue.serving.service import BusyError, Service
from segue.serving.stores import NoMemoryError, StoreError

log = logging.getLogger("segue.serving")

DESCRIPTION = """\
The next items for any history.

Ids may be sent as text or integers and are compared by their text. Errors are problem details
(RFC 9457).
"""


def create_app(service: Service) -> FastAPI:
    """The app of a service, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="segue",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to the Host that was sent, whatever it is
        lifespan=lifespan,
    )
    app.state.service = service
    app.state.guard = Guard(service.settings)
    app.include_router(routes.router)
    _add_probes(app, service)
    pages.add_pages(app, service)
    answer_with_problems(app)
    _answer_errors(app)
    app.add_middleware(HeadAsGet)
    app.add_middleware(  # the outer one: it sees every request first
        Gate,
        guard=app.state.guard,
        metrics=service.metrics,
        settings=service.settings,
    )
    app.openapi = _described(app)  # type: ignore[method-assign]
    return app


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "alive"}

    @app.get("/readyz", responses=documented(503, 504))
    async def readiness() -> dict[str, str]:
        """Say whether requests will be answered."""
        if not service.is_ready:
            raise ProblemError(503, "the service is ending")
        if not service.is_alive:
            raise ProblemError(503, "a thread of the service died; its log has the cause")
        await service.check()
        return {"status": "ready", "model_version": service.model.version}

    @app.get(
        "/metrics",
        response_class=Response,
        responses=documented(401, 403, 429) | {200: {"content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        """Show the metrics as Prometheus reads them."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _answer_errors(app: FastAPI) -> None:
    """What the parts of the service raise, as problems."""
    problems: dict[type[Exception], Callable[[Exception], ProblemError]] = {
        QueueFullError: lambda _: ProblemError(
            503, "as many requests wait as may; ask again", headers={"Retry-After": "1"}
        ),
        ClosedError: lambda _: ProblemError(503, "the service is ending"),
        FailedError: lambda _: ProblemError(500, DEFECT),
        StoreError: _database_problem,
        NoMemoryError: lambda error: ProblemError(409, str(error)),
        BusyError: lambda error: ProblemError(409, str(error)),
        UnknownItemError: lambda error: ProblemError(404, str(error)),
        RequestError: lambda error: ProblemError(422, str(error)),
        DataError: lambda error: ProblemError(422, str(error)),
    }

    def handler(make: Callable[[Exception], ProblemError]) -> Callable[..., Any]:
        async def handle(_: Request, error: Exception) -> Response:
            return make(error).response()

        return handle

    for kind, make in problems.items():
        app.add_exception_handler(kind, handler(make))


def _database_problem(error: Exception) -> ProblemError:
    """Where the database is, and what it says, is for the log only."""
    log.error("%s", error)
    return ProblemError(503, "the database failed; ask again", headers={"Retry-After": "5"})


def _described(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The OpenAPI document, with what all operations share."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            components = document.setdefault("components", {})
            problem = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
            components.setdefault("schemas", {}).update(problem.pop("$defs"))
            components["schemas"]["ProblemDetails"] = problem
            components["securitySchemes"] = {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            }
            document["security"] = [{"key": []}, {"bearer": []}, {}]
            app.openapi_schema = document
        return app.openapi_schema

    return openapi
