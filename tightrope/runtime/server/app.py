"""The server's routes."""

from __future__ import annotations

import time
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tightrope.checks import shown
from tightrope.runtime.server.answering import (
    Endpoint,
    Shared,
    answering,
    begun,
    counted,
    telling,
)
from tightrope.runtime.server.ask import CHAT, COMPLETION
from tightrope.runtime.server.config import ServeConfig
from tightrope.runtime.server.fetch import Web
from tightrope.runtime.server.files import Folder
from tightrope.runtime.server.gate import Gate, Places
from tightrope.runtime.server.messages import ImageLimits
from tightrope.runtime.server.metrics import Metrics
from tightrope.runtime.server.openapi import document
from tightrope.runtime.server.refusal import Refused
from tightrope.runtime.server.shelf import Shelf
from tightrope.runtime.server.silence import refuse_if_silent


class Service:
    """The bundles of a server and what it says of them."""

    def __init__(self, config: ServeConfig, shelf: Shelf) -> None:
        self._config, self._shelf = config, shelf
        places = Places(config)
        folder = None if config.images is None else Folder(config.images)
        self._shared = Shared(
            shelf=shelf,
            limits=ImageLimits(config, folder, Web(config.fetch) if config.fetch else None),
            places=places,
            metrics=Metrics(lambda: places.taken),
        )
        self._created = int(time.time())

    def app(self) -> ASGIApp:
        """The routes behind the gate; raises InputError for a file of keys that is none."""
        shared = self._shared
        routes = [
            Route(
                "/v1/chat/completions",
                Endpoint(shared, CHAT, begun, answering("chat")),
                methods=["POST"],
            ),
            Route(
                "/v1/chat/completions/count",
                Endpoint(shared, CHAT, counted, telling),
                methods=["POST"],
            ),
            Route(
                "/v1/completions",
                Endpoint(shared, COMPLETION, begun, answering("completion")),
                methods=["POST"],
            ),
            Route("/v1/models", self._models),
            Route("/v1/models/{model}", self._model),
            Route("/healthz", self._alive),
            Route("/readyz", self._readiness),
            Route("/metrics", self._figures),
            Route("/openapi.json", self._document),
        ]
        handlers = {HTTPException: _no_route, Refused: _refused}
        routed = Starlette(routes=routes, exception_handlers=handlers)
        routed.router.redirect_slashes = False
        return Gate(routed, self._config)

    async def _models(self, request: Request) -> Response:
        models = [self._described(name) for name in self._shelf.bundles]
        return JSONResponse({"object": "list", "data": models})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name not in self._shelf.bundles:
            known = ", ".join(self._shelf.bundles)
            raise Refused(
                404,
                f"model is {shown(name)}; this server has {known}",
                code="model_not_found",
                param="model",
            )
        return JSONResponse(self._described(name))

    def _described(self, name: str) -> dict[str, Any]:
        manifest = self._shelf.bundles[name].manifest
        resolutions = [] if manifest.vision is None else list(manifest.vision.resolutions)
        told = {
            "family": manifest.family,
            "resolutions": resolutions,
            "selectors": list(manifest.selectors),
            "schedules": list(manifest.schedules),
            "slots": manifest.slots,
            "loaded": name in self._shelf.loaded,
        }
        head = {"id": name, "object": "model", "created": self._created, "owned_by": "tightrope"}
        return {**head, "tightrope": told}

    async def _alive(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _readiness(self, request: Request) -> Response:
        self._shelf.refuse_while_loading()
        for parts in list(self._shelf.loaded.values()):
            refuse_if_silent(parts.engine)
        return JSONResponse({"status": "ready", "models": list(self._shelf.bundles)})

    async def _figures(self, request: Request) -> Response:
        content, kind = self._shared.metrics.page()
        return Response(content, headers={"content-type": kind})

    async def _document(self, request: Request) -> Response:
        return JSONResponse(document())


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.to_dict(), error.status, error.headers)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {404: "there is nothing at this address; see /openapi.json"}
    texts[405] = "this address takes another method; see /openapi.json"
    refused = Refused(error.status_code, texts.get(error.status_code, error.detail))
    return JSONResponse(refused.to_dict(), error.status_code, error.headers)
