"""The pages: recommendations to look at, and the description of the interface."""

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import jinja2
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from segue.serving import routes
from segue.serving.model import YEAR, ServedModel
from segue.serving.service import Service

MAX_CHOICES = 100


def add_pages(app: FastAPI, service: Service) -> None:
    """Add `/`, `/docs` and what they load."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("segue.serving"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    app.mount("/static", StaticFiles(packages=[("segue.serving", "static")]))

    home = _Home(
        lambda model: templates.get_template("index.html").render(
            _shown(model) | {"needs_key": bool(service.settings.keys.api)}
        )
    )
    described = cache(lambda: templates.get_template("docs.html").render(openapi=app.openapi()))

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(await home.of(service.model))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(described())

    @app.get("/docs/", include_in_schema=False)
    async def docs_with_slash() -> RedirectResponse:
        return RedirectResponse("../docs")


class _Home:
    """The home page, which is written once for each model: it looks through the whole catalogue."""

    def __init__(self, render: Callable[[ServedModel], str]) -> None:
        self._render = render
        self._pages: WeakKeyDictionary[ServedModel, str] = WeakKeyDictionary()
        self._lock = asyncio.Lock()

    async def of(self, model: ServedModel) -> str:
        """The page of a model."""
        async with self._lock:
            if model not in self._pages:
                self._pages[model] = await asyncio.to_thread(self._render, model)
            return self._pages[model]


def _shown(model: ServedModel) -> dict[str, Any]:
    columns = model.catalogue.columns
    genre = next((name for name in ("genres", "genre", "category") if name in columns), None)
    choices = model.filters.entries(genre) if genre else []
    years = model.catalogue[YEAR].drop_nulls() if YEAR in columns else None
    has_years = years is not None and years.dtype.is_integer() and len(years) > 0
    about = routes.about(model)
    report = about["report"]
    return {
        "about": about,
        "metrics": report.get("metrics", {}),
        "intervals": report.get("intervals", {}),
        "baselines": report.get("baselines", {}),
        "genre_field": genre if 0 < len(choices) <= MAX_CHOICES else None,
        "genres": choices if len(choices) <= MAX_CHOICES else [],
        "years": (years.min(), years.max()) if has_years and years is not None else None,
        "has_titles": "title" in columns,
    }
