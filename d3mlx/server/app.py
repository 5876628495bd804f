"""The HTTP server: routes, streams, limits and errors. It knows clients and the worker, but no model."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from d3mlx.errors import CheckpointError, D3Error, first_line
from d3mlx.server.fields import (
    Ask,
    BadRequestError,
    Body,
    Defaults,
    read_ask,
    read_infill,
    read_messages,
    read_text_prompt,
    with_field_names,
)
from d3mlx.server.metrics import metrics
from d3mlx.server.replies import InfillReply, Kind, Reply, event, failure
from d3mlx.server.worker import Job, Order, Picture, Progress, QueueFullError, ServerEndsError, Worker
from d3mlx.terminal import write

MOST_BYTES = 16 << 20
"""Largest body of a request."""

PAGE = Path(__file__).with_name("page.html")
POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: nothing from other sites."""

KEEP_ALIVE = 15.0
"""Seconds after which a stream without news gets a comment, so that proxies keep the connection."""

KEEP_ALIVE_COMMENT = ": keep-alive\n\n"
"""An event that clients ignore."""

RETRY_AFTER = 2
"""Seconds that a client should wait when the queue is full."""


@dataclass(frozen=True)
class Settings:
    """Settings of the server. name: of the model. origins: sites whose pages may use the server.

    notice: a sentence about the model for the page.
    """

    name: str
    defaults: Defaults
    api_key: str | None = None
    origins: tuple[str, ...] = ()
    notice: str = ""


class Client:
    """The connection of a client to its job."""

    def __init__(self, worker: Worker, order: Order, request: Request, pictures: bool):
        self.worker, self.request = worker, request
        loop, self.news = asyncio.get_running_loop(), asyncio.Event()
        self.job = Job(order, partial(loop.call_soon_threadsafe, self.news.set), pictures)

    async def progress(self) -> AsyncIterator[Progress | None]:
        """Yield the progress whenever there is news, and None after KEEP_ALIVE seconds without.

        When the reader goes away, the job is canceled.
        """
        try:
            last = time.monotonic()
            while True:
                if await self.request.is_disconnected():
                    return
                try:
                    await asyncio.wait_for(self.news.wait(), timeout=1.0)
                except TimeoutError:
                    if time.monotonic() - last >= KEEP_ALIVE:
                        last = time.monotonic()
                        yield None
                    continue
                self.news.clear()
                now, last = self.job.progress, time.monotonic()
                yield now
                if now.over:
                    return
        finally:
            self.worker.cancel(self.job)


def create_app(worker: Worker, settings: Settings) -> FastAPI:
    """Return the application. The worker's thread runs while the application runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.thread.start()
        yield
        await asyncio.to_thread(worker.stop)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.origins), allow_methods=["*"], allow_headers=["*"]
        )
    Routes(worker, settings).add_to(app)
    return app


class Routes:
    """The functions that answer requests."""

    def __init__(self, worker: Worker, settings: Settings):
        self.worker, self.settings = worker, settings

    def add_to(self, app: FastAPI) -> None:
        """Add all routes and error handlers."""
        for path, prompt_of, kind in (
            ("/v1/chat/completions", read_messages, "chat.completion"),
            ("/chat/completions", read_messages, "chat.completion"),
            ("/v1/completions", read_text_prompt, "text_completion"),
            ("/v1/fim/completions", read_text_prompt, "fim"),
        ):
            app.add_api_route(path, self.completion(prompt_of, kind), methods=["POST"], response_model=None)  # type: ignore[arg-type]
        app.add_api_route("/infill", self.infill, methods=["POST"], response_model=None)
        app.add_api_route("/metrics", self.metrics, methods=["GET", "HEAD"], response_model=None)
        app.add_api_route("/", self.page, methods=["GET", "HEAD"], response_model=None)
        app.add_api_route("/v1/models", self.models, methods=["GET", "HEAD"], response_model=None)
        app.add_api_route("/v1/models/{name:path}", self.model, methods=["GET", "HEAD"], response_model=None)
        app.add_api_route("/health", self.health, methods=["GET", "HEAD"], response_model=None)
        app.add_exception_handler(D3Error, self.refuse)
        app.add_exception_handler(QueueFullError, self.refuse)
        app.add_exception_handler(HTTPException, self.refuse)
        app.add_exception_handler(ClientDisconnect, self.drop)
        app.add_exception_handler(Exception, self.report)

    def completion(self, prompt_of: Callable[[Body], Any], kind: Kind) -> Callable[[Request], Any]:
        """Return the function of a route. prompt_of: returns the prompt of a body."""

        async def answer(request: Request) -> Response:
            body = await self.body_of(request)
            order, ask = self.read(body, prompt_of)
            return await self.reply(request, order, ask, Reply(kind, self.settings.name, ask.name, ask.ignored))

        return answer

    async def infill(self, request: Request) -> Response:
        """Return the text of a hole, as llama.cpp's server does."""
        body = await self.body_of(request)
        order, ask = self.read(body, read_infill)
        prefix = body.get("input_prefix", str, default="")
        reply = InfillReply("text_completion", self.settings.name, ask.name, ask.ignored, prompt=prefix)
        return await self.reply(request, order, ask, reply)

    async def body_of(self, request: Request) -> Body:
        """Return the body of a request with the correct key, from a page that may use the server."""
        self.check_key(request)
        self.check_origin(request)
        return Body(await read_json(request))

    def read(self, body: Body, prompt_of: Callable[[Body], Any]) -> tuple[Order, Ask]:
        """Return what a client wants. prompt_of: returns the prompt of a body."""
        prompt = prompt_of(body)
        ask = read_ask(body, self.settings.defaults)
        return Order(prompt, ask.decoder, ask.options), ask

    async def reply(self, request: Request, order: Order, ask: Ask, reply: Reply) -> Response:
        """Start a job and return its reply, at once or as a stream."""
        client = Client(self.worker, order, request, ask.diffusing)
        self.worker.submit(client.job)
        return await self.stream(client, reply, ask) if ask.stream else await self.whole(client, reply)

    async def whole(self, client: Client, reply: Reply) -> Response:
        """Return the complete reply when the job is over."""
        last = client.job.progress
        async for progress in client.progress():
            last = progress or last
        if last.error is not None:
            raise last.error
        return JSONResponse(reply.complete(last))

    async def stream(self, client: Client, reply: Reply, ask: Ask) -> Response:
        """Return a stream of events. An error before the first step is a reply of its own."""
        news = client.progress()
        first = await anext(news, None)
        if first is not None and first.error is not None:
            raise first.error
        return StreamingResponse(
            events(first, news, reply, ask),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    def check_key(self, request: Request) -> None:
        """Raise UnauthorizedError if the server has a key and the request does not."""
        key = self.settings.api_key
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        is_key = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), (key or "").encode())
        if key is not None and not is_key:
            raise UnauthorizedError("The API key is missing or wrong. Send it as Authorization: Bearer KEY.")

    def check_origin(self, request: Request) -> None:
        """Raise ForbiddenError for a page of another site. A browser would let it send requests without reading them.

        A name of a host can be made to lead to this machine, so only addresses and localhost are this site.
        """
        origin = request.headers.get("origin")
        if origin is None or origin in self.settings.origins:
            return
        if not is_this_site(origin, request.headers.get("host", "")):
            raise ForbiddenError(
                f"Pages of {origin[:80]!r} may not use this server. To allow a site, start it with --allowed-origins."
            )

    async def models(self, request: Request) -> Response:
        """Return the list of models, which has one."""
        self.check_key(request)
        return JSONResponse({"object": "list", "data": [self.described()]})

    async def model(self, request: Request, name: str) -> Response:
        """Return the model of this name."""
        self.check_key(request)
        if name != self.settings.name:
            return JSONResponse(failure(f"There is no model {name}. This server has {self.settings.name}.", 404), 404)
        return JSONResponse(self.described())

    def described(self) -> dict[str, Any]:
        named = {"id": self.settings.name, "object": "model", "created": 0, "owned_by": "d3mlx"}
        context = {"max_context_length": self.worker.model.args.context}
        return {**named, **context, **({"notice": self.settings.notice} if self.settings.notice else {})}

    async def health(self) -> Response:
        """Return whether the worker is alive."""
        alive = self.worker.thread.is_alive()
        return PlainTextResponse("ok\n" if alive else "The worker has ended.\n", 200 if alive else 503)

    async def metrics(self, request: Request) -> Response:
        """Return measurements for Prometheus."""
        self.check_key(request)
        return PlainTextResponse(metrics(self.worker))

    async def page(self) -> Response:
        """Return the page, which is a chat."""
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": POLICY})

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Return an error as a reply."""
        if isinstance(error, QueueFullError):
            message = "The server has too many requests. Try again later."
            return JSONResponse(failure(message, 503), 503, {"Retry-After": str(RETRY_AFTER)})
        if isinstance(error, HTTPException):
            place = request.url.path[:80]
            known = f"{place} has no method {request.method}. Use another one."
            message = known if error.status_code == 405 else f"This server has no {request.method} {place}."
            return JSONResponse(failure(message, error.status_code), error.status_code, error.headers)
        status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 400)
        field = error.field if isinstance(error, BadRequestError) else None
        return JSONResponse(failure(with_field_names(str(error)), status, field), status)

    async def drop(self, request: Request, error: Exception) -> Response:
        """Return nothing to a client that closed its connection."""
        return Response(status_code=400)

    async def report(self, request: Request, error: Exception) -> Response:
        """Return a fault of the server as a reply, and write one line about it."""
        write(sys.stderr, f"Error: {request.url.path} failed: {type(error).__name__}: {first_line(error)}\n")
        return JSONResponse(failure("The server failed. Its log has the reason.", 500), 500)


class UnauthorizedError(D3Error):
    """A request without the key of the server."""


class ForbiddenError(D3Error):
    """A request of a page of another site."""


class TooLargeError(D3Error):
    """A request whose body is too large."""


STATUSES: dict[type[Exception], int] = {
    UnauthorizedError: 401,
    ForbiddenError: 403,
    TooLargeError: 413,
    CheckpointError: 500,
    ServerEndsError: 503,
}
"""Status of each kind of error. Others are mistakes of the client."""


def is_this_site(origin: str, host: str) -> bool:
    """Return whether a page's origin is this server at an address of its own. host: the header of the request."""
    try:
        name, place = urlsplit(f"//{host}").hostname or "", urlsplit(origin).netloc
    except ValueError:
        return False
    return place == host and (name == "localhost" or is_address(name))


def is_address(name: str) -> bool:
    """Return whether a host is named by its IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def read_json(request: Request) -> Any:
    """Return the JSON value of a body. Raises BadRequestError or TooLargeError."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise TooLargeError(f"The body has more than {MOST_BYTES:,} bytes. Shorten the request.")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise BadRequestError("The body is not valid JSON.") from None


def picture_of(picture: Picture) -> dict[str, Any]:
    """Return the canvas for a page that shows it."""
    return {"cells": picture.cells, "blocks": picture.blocks}


async def events(
    first: Progress | None, news: AsyncIterator[Progress | None], reply: Reply, ask: Ask
) -> AsyncIterator[str]:
    """Yield the events of a stream: chunks with new text, or with the whole current text if `diffusing`."""
    sent, opened, last = 0, False, first

    def chunk(progress: Progress) -> str:
        nonlocal sent, opened
        text = progress.picture.text if progress.picture and not progress.over else progress.text
        shown = text if ask.diffusing else text[sent:]
        sent, begins, opened = len(progress.text), not opened, True
        content = reply.chunk(shown, begins, progress.finish_reason)
        if progress.picture is not None:
            content["x_d3mlx"] = {**reply.figures(progress), **picture_of(progress.picture)}
        elif progress.over:
            content |= reply.ending(progress)
        return event(content)

    yield KEEP_ALIVE_COMMENT if first is None else chunk(first)
    async for progress in news:
        if progress is None:
            yield KEEP_ALIVE_COMMENT
            continue
        last = progress
        if progress.error is not None:
            yield event(failure(str(progress.error), 500))
            return
        if progress.over or ask.diffusing or len(progress.text) > sent:
            yield chunk(progress)
    if last is not None and last.over:
        for text in reply.closing(last, ask.include_usage):
            yield text
