"""The routes that answer: a body becomes a request, its pieces become a reply."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from tightrope.errors import BundleError, InputError
from tightrope.runtime.answer import Answer
from tightrope.runtime.count import count
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
    came: float
    """When its head had come, in seconds of `perf_counter`."""
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


Respond = Callable[[Exchange], Awaitable[None]]


class Endpoint:
    """Reads what is asked, within limits, and has it answered; no error leaves it."""

    def __init__(self, shared: Shared, form: Form, respond: Respond) -> None:
        self._shared, self._form, self._respond = shared, form, respond

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
            refused = refusal(error, self._form.fields)
            shared.metrics.refused(refused, client.model)
            await client.refuse(refused)

    async def _answer(self, request: Request, client: Client, held: contextlib.ExitStack) -> None:
        """Outside nothing of the bundle is known: it may leave memory once `held` is closed."""
        came = time.perf_counter()  # who sends slowly waits as well
        body = await read_body(request, self._shared.limits.config.max_body_mb * MB)
        asked = await run_in_threadpool(self._asked, body, held)
        del body  # an answer may take long, and bodies are large
        client.model = asked.model
        await self._respond(
            Exchange(
                asked=asked,
                came=came,
                receive=request.receive,
                client=client,
                metrics=self._shared.metrics,
            )
        )

    def _asked(self, body: bytes, held: contextlib.ExitStack) -> Asked:
        shelf = self._shared.shelf

        def take(name: str) -> Loaded:
            try:
                return held.enter_context(shelf.using(name))
            except BundleError as error:  # gone or damaged: no fault of the request
                raise refusal(error, ()) from error

        with _blaming_the_request():
            return asked_by(parsed(body), self._form, shelf.bundles, take, self._shared.limits)


def answering(kind: Kind) -> Respond:
    """Answers, whole or in events."""

    async def respond(exchange: Exchange) -> None:
        reply, engine = Reply(kind=kind, asked=exchange.asked), exchange.asked.loaded.engine
        refuse_if_silent(engine)
        running = Running(lambda: _begin(exchange))
        async with watched(running, exchange.receive, engine):
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


async def counting(exchange: Exchange) -> None:
    """Tells what an answer would take."""
    asked = exchange.asked

    def counted() -> dict[str, Any]:
        with _blaming_the_request():
            return count(asked.loaded, asked.prompt, asked.images, asked.options).to_dict()

    told = await run_in_threadpool(counted)
    await exchange.client.json({"object": "chat.completion.count", "model": asked.model, **told})


def _begin(exchange: Exchange) -> Stream:
    asked = exchange.asked
    with _blaming_the_request():
        waited = time.perf_counter() - exchange.came
        return start(asked.loaded, asked.prompt, asked.images, asked.options, waited_s=waited)


@contextlib.contextmanager
def _blaming_the_request() -> Iterator[None]:
    """Inside, a template that fails does so on these messages: the bundle answered others."""
    try:
        yield
    except BundleError as error:
        raise InputError(str(error)) from error
