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
from tightrope.runtime.server.answering import Endpoint, Shared, answering, counting
from tightrope.runtime.server.ask import CHAT, COMPLETION
from tightrope.runtime.server.bundles import Bundles
from tightrope.runtime.server.config import ServeConfig
from tightrope.runtime.server.files import Folder
from tightrope.runtime.server.gate import Gate, Places
from tightrope.runtime.server.messages import ImageLimits
from tightrope.runtime.server.metrics import Metrics
from tightrope.runtime.server.openapi import document
from tightrope.runtime.server.refusal import Refused

SILENT_SECONDS = 120.0
"""After so long without a word of a running request its engine counts as hung."""


class Service:
    """The bundles of a server and what it says of them."""

    def __init__(self, config: ServeConfig, bundles: Bundles) -> None:
        self._config, self._bundles = config, bundles
        places = Places(config)
        folder = None if config.images is None else Folder(config.images)
        self._shared = Shared(
            bundles=bundles,
            limits=ImageLimits(config, folder),
            places=places,
            metrics=Metrics(lambda: places.taken),
        )
        self._created = int(time.time())

    def app(self) -> ASGIApp:
        """The routes behind the gate; raises InputError for a file of keys that is none."""
        shared = self._shared
        routes = [
            Route(
                "/v1/chat/completions", Endpoint(shared, CHAT, answering("chat")), methods=["POST"]
            ),
            Route("/v1/chat/completions/count", Endpoint(shared, CHAT, counting), methods=["POST"]),
            Route(
                "/v1/completions",
                Endpoint(shared, COMPLETION, answering("completion")),
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
        models = [self._described(name) for name in self._bundles.opened]
        return JSONResponse({"object": "list", "data": models})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name not in self._bundles.opened:
            known = ", ".join(self._bundles.opened)
            raise Refused(
                404,
                f"model is {shown(name)}; this server has {known}",
                code="model_not_found",
                param="model",
            )
        return JSONResponse(self._described(name))

    def _described(self, name: str) -> dict[str, Any]:
        manifest = self._bundles.opened[name].manifest
        resolutions = [] if manifest.vision is None else list(manifest.vision.resolutions)
        told = {
            "family": manifest.family,
            "resolutions": resolutions,
            "selectors": list(manifest.selectors),
            "schedules": list(manifest.schedules),
            "slots": manifest.slots,
        }
        head = {"id": name, "object": "model", "created": self._created, "owned_by": "tightrope"}
        return {**head, "tightrope": told}

    async def _alive(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _readiness(self, request: Request) -> Response:
        bundles = self._bundles
        bundles.refuse_while_loading()
        if not bundles.complete:
            raise Refused(503, "a bundle is being exchanged", code="loading", retry_s=2.0)
        silent = max(parts.engine.silent_s() for parts in bundles.loaded.values())
        if silent > SILENT_SECONDS:
            raise Refused(
                503,
                f"nothing has come of the running request for {silent:.0f} s; restart the server",
                code="engine_silent",
            )
        return JSONResponse({"status": "ready", "models": list(bundles.loaded)})

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
