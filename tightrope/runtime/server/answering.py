"""The routes that answer: a body becomes a request, its pieces become a reply."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from tightrope.errors import BundleError, InputError
from tightrope.runtime.answer import Answer
from tightrope.runtime.count import Count, count
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.server.ask import Asked, Form, asked_by
from tightrope.runtime.server.body import parsed, read_body
from tightrope.runtime.server.gate import CLIENT, Places
from tightrope.runtime.server.messages import MB, ImageLimits
from tightrope.runtime.server.metrics import Metrics
from tightrope.runtime.server.refusal import Refused, refusal
from tightrope.runtime.server.replies import Kind, Reply, event
from tightrope.runtime.server.running import Gone, Running, watched
from tightrope.runtime.server.shelf import Shelf
from tightrope.runtime.server.silence import refuse_if_silent
from tightrope.runtime.server.told import tell
from tightrope.runtime.stream import Stream, start

_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the answering routes of a server have in common."""

    shelf: Shelf
    limits: ImageLimits
    places: Places
    metrics: Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request that was understood, and the way to whoever sent it."""

    asked: Asked
    receive: Receive
    client: Client
    metrics: Metrics


class Client:
    """Where a response goes, and whether it has begun."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._begun = False
        self.model: str | None = None
        """The bundle that it asks, once that is known."""

    async def json(
        self, value: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """The whole response."""
        self._begun = True
        await JSONResponse(value, status, headers)(self._scope, self._receive, self._send)

    async def events(self, content: bytes, *, more: bool = True) -> None:
        """More of a response in events."""
        if not self._begun:
            self._begun = True
            head = {"type": "http.response.start", "status": 200, "headers": _EVENTS}
            await self._send(head)
        await self._send({"type": "http.response.body", "body": content, "more_body": more})

    async def refuse(self, refused: Refused) -> None:
        """Say why not, in the response's head or, where that is gone, in a last event."""
        if self._begun:
            await self.events(event(refused.to_dict()), more=False)
        else:
            await self.json(refused.to_dict(), refused.status, refused.headers)


Ready = TypeVar("Ready")
Prepare = Callable[[Asked, float], Ready]
"""On a thread: from what is asked, and when its head had come in seconds of `perf_counter`."""
Respond = Callable[[Exchange, Ready], Awaitable[None]]


class Endpoint(Generic[Ready]):
    """Reads what is asked, within limits, and has it answered; no error leaves it."""

    def __init__(
        self, shared: Shared, form: Form, prepare: Prepare[Ready], respond: Respond[Ready]
    ) -> None:
        self._shared, self._form = shared, form
        self._prepare, self._respond = prepare, respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shared, client = self._shared, Client(scope, receive, send)
        try:
            with shared.places.taking(scope[CLIENT]), contextlib.ExitStack() as held:
                shared.shelf.refuse_while_loading()
                await self._answer(Request(scope, receive), client, held)
        except Gone:
            if client.model is not None:
                shared.metrics.left(client.model)
        except asyncio.CancelledError:
            stopping = "the server is being stopped; ask again when it is back"
            await client.refuse(Refused(503, stopping, code="stopping", retry_s=5.0))
        # The outermost place: whatever it was, the client is told, and nothing else ends by it.
        except Exception as error:
            refused = refusal(error, self._form.names)
            shared.metrics.refused(refused, client.model)
            await client.refuse(refused)

    async def _answer(self, request: Request, client: Client, held: contextlib.ExitStack) -> None:
        """Outside nothing of the bundle is known: it may leave memory once `held` is closed."""
        came = time.perf_counter()  # who sends slowly waits as well
        body = await read_body(request, self._shared.limits.config.max_body_mb * MB)
        asked, ready = await run_in_threadpool(self._prepared, body, came, client, held)
        del body  # an answer may take long, and bodies are large
        metrics = self._shared.metrics
        exchange = Exchange(asked=asked, receive=request.receive, client=client, metrics=metrics)
        await self._respond(exchange, ready)

    def _prepared(
        self, body: bytearray, came: float, client: Client, held: contextlib.ExitStack
    ) -> tuple[Asked, Ready]:
        """All that is done before there is something to say, at once: each change of threads takes
        as long as reading a body."""
        shelf = self._shared.shelf

        def take(name: str) -> Loaded:
            try:
                return held.enter_context(shelf.using(name))
            except BundleError as error:  # gone or damaged: no fault of the request
                raise refusal(error, ()) from error

        try:
            asked = asked_by(parsed(body), self._form, shelf.bundles, take, self._shared.limits)
            client.model = asked.model
            return asked, self._prepare(asked, came)
        # A template that fails does so on these messages: the bundle answered others.
        except BundleError as error:
            raise InputError(str(error)) from error


def begun(asked: Asked, came: float) -> Stream:
    """The answer, handed to the engine."""
    refuse_if_silent(asked.loaded.engine)
    waited = time.perf_counter() - came
    return start(asked.loaded, asked.prompt, asked.images, asked.options, waited_s=waited)


def answering(kind: Kind) -> Respond[Stream]:
    """Answers, whole or in events."""

    async def respond(exchange: Exchange, stream: Stream) -> None:
        reply, running = Reply(kind=kind, asked=exchange.asked), Running(stream)
        async with watched(running, exchange.receive, exchange.asked.loaded.engine):
            if exchange.asked.stream:
                await _streamed(exchange, reply, running)
            else:
                answer = await running.answer()
                _finished(exchange, answer)
                await exchange.client.json(reply.whole(answer))

    return respond


async def _streamed(exchange: Exchange, reply: Reply, running: Running) -> None:
    """Nothing is sent before the first piece: until then it may still be refused."""
    begin, said = reply.begin(), 0
    async for piece in running:
        if piece.answer is not None:
            _finished(exchange, piece.answer)
            await exchange.client.events(begin + reply.end(piece, piece.answer, said), more=False)
            return
        await exchange.client.events(begin + reply.piece(piece, said))
        begin, said = b"", said + len(piece.text)


def _finished(exchange: Exchange, answer: Answer) -> None:
    exchange.metrics.answered(exchange.asked.model, answer)
    tell(exchange.asked.model, answer)


def counted(asked: Asked, came: float) -> Count:
    """What an answer would take."""
    return count(asked.loaded, asked.prompt, asked.images, asked.options)


async def telling(exchange: Exchange, told: Count) -> None:
    """Says it."""
    head = {"object": "chat.completion.count", "model": exchange.asked.model}
    await exchange.client.json({**head, **told.to_dict()})
