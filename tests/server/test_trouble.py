"""The server with clients and requests that make trouble, and at its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import time
from typing import Any

import httpx
import pytest

from d3mlx import generate
from d3mlx.errors import CheckpointError, MemoryLimitError
from d3mlx.generation import Generation
from d3mlx.request import Request
from d3mlx.server.worker import Worker
from tests.server.conftest import Served, served
from tests.server.load import server as server_process
from tests.server.test_api import ANSWER, CHAT


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (None, None, 200),
        (None, "https://allowed.example", 200),
        (None, "https://other.example", 403),
        (None, "null", 403),
        (None, "http://[", 403),
        ("[", "http://[", 403),
        ("127.0.0.1:1", "http://127.0.0.1:1", 200),
        ("[::1]:1", "http://[::1]:1", 200),
        ("localhost:1", "http://localhost:2", 403),
        ("rebound.example", "http://rebound.example", 403),
    ],
)
def test_pages_of_other_sites_cannot_use_the_server(
    server: Served, host: str | None, origin: str | None, status: int
) -> None:
    headers = {name: value for name, value in (("Host", host), ("Origin", origin)) if value is not None}
    reply = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": CHAT}, headers=headers)
    assert reply.status_code == status
    if status == 403:
        assert reply.json()["error"]["message"].startswith(f"Pages of {origin!r} may not use this server.")


def test_bodies_that_are_no_requests(server: Served) -> None:
    url = f"{server.url}/v1/chat/completions"
    for content, status in ((b"{", 400), (b"[1]", 400), (b"", 400), (b'{"a":' * 9999, 400), (b"x" * (17 << 20), 413)):
        assert httpx.post(url, content=content).status_code == status
    assert httpx.get(f"{server.url}/v1/models/other").status_code == 404
    for method, path, status in (
        ("POST", "/v1/nothing", 404),
        ("PUT", "/v1/completions", 405),
        ("GET", "/infill/", 404),
    ):
        reply = httpx.request(method, server.url + path)
        assert (reply.status_code, path in reply.json()["error"]["message"]) == (status, True)
    reply = httpx.post(f"{server.url}/v1/completions", json={"prompt": "a", "echo": True})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "echo")
    for path in ("/", "/health", "/v1/models", "/metrics"):
        assert httpx.head(server.url + path).status_code == 200
    odd = b'{"\\ud800": 1, "prompt": "Anna", "max_tokens": 4, "end_penalty": 10000000000000000000000000}'
    reply = httpx.post(f"{server.url}/v1/completions", content=odd)
    assert (reply.status_code, reply.json()["x_d3mlx"]["ignored"]) == (200, ["?"])
    # The server closes a connection with too large headers, often before the client has sent all of them.
    with contextlib.suppress(httpx.TransportError):
        assert httpx.get(f"{server.url}/health", headers={"x": "y" * (1 << 20)}).status_code in (400, 431)
    assert httpx.get(f"{server.url}/health").text == "ok\n"


def test_a_full_queue_answers_503(embedded: Any) -> None:
    slow = {"messages": CHAT, "decoder": "vanilla", "max_tokens": 96}
    with served(*embedded, max_batch=1, max_waiting=1) as running:

        async def crowd() -> list[httpx.Response]:
            async with httpx.AsyncClient(timeout=60) as client:
                url = f"{running.url}/v1/chat/completions"
                return await asyncio.gather(*(client.post(url, json=slow) for _ in range(6)))

        replies = asyncio.run(crowd())
        refused = [reply for reply in replies if reply.status_code == 503]
        assert {reply.status_code for reply in replies} == {200, 503}
        assert all(int(reply.headers["retry-after"]) > 0 for reply in refused)


def wait_until_idle(running: Served) -> None:
    end = time.monotonic() + 30
    while running.worker.running or running.worker.waiting:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_client_that_leaves_frees_its_place(embedded: Any) -> None:
    """A closed connection in a stream, in a whole reply, and before the body is complete."""
    slow = {"messages": CHAT, "decoder": "vanilla", "max_tokens": 450}
    with served(*embedded, max_batch=2) as running:
        for stream in (True, False):
            with httpx.Client() as client, pytest.raises(httpx.ReadTimeout):
                client.post(f"{running.url}/v1/chat/completions", json={**slow, "stream": stream}, timeout=0.3)
            wait_until_idle(running)
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{")
        wait_until_idle(running)
        assert running.worker.totals.answers["canceled"] == 2
        assert httpx.post(f"{running.url}/v1/chat/completions", json={"messages": CHAT}).status_code == 200


def test_a_slow_reader_delays_nobody(server: Served) -> None:
    """It reads nothing until others have their answers. Then it gets the rest of its stream."""
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({"messages": CHAT, "decoder": "vanilla", "max_tokens": 200, "stream": True, "diffusing": True})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall((head + body).encode())
        for _ in range(3):
            reply = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": CHAT})
            assert reply.json()["choices"][0]["message"]["content"] == ANSWER
        wait_until_idle(server)
        received = b"".join(iter(lambda: slow.recv(1 << 16), b""))
    assert b"data: [DONE]" in received
    assert ANSWER.encode() in received


def test_a_stream_without_news_is_kept_alive(embedded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step takes longer than the time after which a comment is due."""
    step = Worker.step

    def slow(worker: Worker) -> None:
        time.sleep(0 if worker.totals.steps else 2.5)
        step(worker)

    monkeypatch.setattr(Worker, "step", slow)
    monkeypatch.setattr("d3mlx.server.app.KEEP_ALIVE", 0.5)
    with served(*embedded) as running:
        reply = httpx.post(f"{running.url}/v1/chat/completions", json={"messages": CHAT, "stream": True})
    assert reply.text.startswith(": keep-alive\n\n")
    assert "".join(re.findall(r'"content": "(.*?)"', reply.text)) == ANSWER


def test_a_failure_after_a_step_ends_only_its_own_request(embedded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example, the text of one answer cannot be decoded. The worker lives on."""
    take = Generation.take

    def failing(generation: Generation, step: Any) -> Any:
        if generation.canvas.tokens[0] == 7:
            raise MemoryLimitError("A request of 64 positions needs 9 GB for its cache.")
        return take(generation, step)

    monkeypatch.setattr(Generation, "take", failing)
    with served(*embedded) as running:
        url = f"{running.url}/v1/completions"
        reply = httpx.post(url, json={"prompt": [7, 8, 9]})
        assert (reply.status_code, reply.json()["error"]["message"][:9]) == (400, "A request")
        assert httpx.post(url, json={"prompt": [5, 6], "max_tokens": 8}).status_code == 200
        wait_until_idle(running)


def test_a_failing_request_does_not_harm_the_others(embedded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits of one request are not numbers. It gets status 500, and the others get their answers."""
    model, tokenizer = embedded
    settle = Request.settle

    def failing(request: Request, packed: Any) -> Any:
        if request.canvas.tokens[0] == 7:
            raise CheckpointError("The model's logits are not numbers (NaN).")
        return settle(request, packed)

    monkeypatch.setattr(Request, "settle", failing)
    with served(model, tokenizer) as running:

        async def together() -> list[httpx.Response]:
            async with httpx.AsyncClient(timeout=60) as client:
                url = f"{running.url}/v1/completions"
                prompts = [[7, 8, 9], *[[5, 6, i] for i in range(10, 14)]]
                return await asyncio.gather(
                    *(client.post(url, json={"prompt": prompt, "max_tokens": 24}) for prompt in prompts)
                )

        bad, *good = asyncio.run(together())
    assert (bad.status_code, bad.json()["error"]["message"]) == (500, "The model's logits are not numbers (NaN).")
    monkeypatch.setattr(Request, "settle", settle)
    for i, reply in enumerate(good, 10):
        assert reply.json()["choices"][0]["text"] == generate(model, tokenizer, [5, 6, i], max_tokens=24).text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_soon(number: signal.Signals) -> None:
    """Requests that run too long end with an error, and nothing else is written."""
    slow = {"messages": CHAT, "decoder": "vanilla", "max_tokens": 440, "stream": True}
    with server_process() as (address, process):

        async def crowd() -> list[str]:
            async with httpx.AsyncClient(timeout=60, base_url=address) as client:
                posts = [client.post("/v1/chat/completions", json=slow) for _ in range(20)]
                running = asyncio.gather(*posts, return_exceptions=True)
                host, port = address.removeprefix("http://").split(":")
                with socket.create_connection((host, int(port))) as half:
                    half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{")
                    await asyncio.sleep(2)
                    process.send_signal(number)
                    replies = await running
                return [reply.text if isinstance(reply, httpx.Response) else repr(reply) for reply in replies]

        texts = asyncio.run(crowd())
        assert process.wait(timeout=20) in (0, -number, 128 + number)
        assert process.stderr is not None and process.stderr.read() in ("", "Interrupted.\n")
    assert all(text.endswith("data: [DONE]\n\n") or "The server is ending." in text for text in texts)
    assert any("The server is ending." in text for text in texts)
