"""The server with the clients that people have: openai, and the requests of editors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from d3mlx import generate, load, preset
from d3mlx.document import Document
from tests.examples import ANSWER, BEGINNING, ENDING, QUESTION
from tests.replicas import sdar_chat
from tests.server.conftest import Served, served

CHAT: list[Any] = [{"role": "user", "content": QUESTION}]


@pytest.fixture
def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)


def chunks(response: httpx.Response) -> list[Any]:
    """Return the events of a stream. It ends with [DONE]."""
    *events, last, end = response.text.split("\n\n")
    assert (last, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_a_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="embedded", messages=CHAT, presence_penalty=1, user="me")
    (choice,) = reply.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == (ANSWER, "assistant", "stop")
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (23, 20, 43)
    figures = reply.model_extra["x_d3mlx"]  # type: ignore[index]
    assert (figures["decoder"], figures["forwards"], figures["ignored"]) == (
        "selective",
        3,
        ["presence_penalty", "user"],
    )
    assert [model.id for model in client.models.list()] == [client.models.retrieve("embedded").id] == ["embedded"]


def test_a_stream_only_grows(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="embedded", messages=CHAT, stream=True, stream_options={"include_usage": True}
    )
    *parts, last = stream
    assert "".join(part.choices[0].delta.content or "" for part in parts) == ANSWER
    assert [part.choices[0].finish_reason for part in parts] == [None] * (len(parts) - 1) + ["stop"]
    assert len(parts) > 1
    assert (parts[0].choices[0].delta.role, parts[1].choices[0].delta.role) == ("assistant", None)
    assert last.choices == [] and last.usage is not None and last.usage.completion_tokens == 20


def test_a_diffusing_stream_has_the_whole_text_in_every_chunk(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="embedded", messages=CHAT, stream=True, extra_body={"diffusing": True}
    )
    parts = [part for part in stream if part.choices]
    texts = [part.choices[0].delta.content or "" for part in parts]
    assert texts[-1] == ANSWER
    assert all("░" in text for text in texts[:-1]) and "░" not in texts[-1]
    for part, text in zip(parts[:-1], texts, strict=False):
        cells = part.model_extra["x_d3mlx"]["cells"]  # type: ignore[index]
        assert "".join(cell[0] if isinstance(cell[0], str) else "░" * cell[0] for cell in cells) == text


def test_many_clients_at_once_get_what_each_gets_alone(server: Served, embedded: Any) -> None:
    async def ask(prompt: str, **options: Any) -> str:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
            reply = await client.completions.create(model="m", prompt=prompt, **options)
            return reply.choices[0].text

    prompts = [f"{QUESTION} {BEGINNING} {i}" for i in range(12)]

    async def everyone() -> list[str]:
        return await asyncio.gather(*(ask(prompt, max_tokens=24, seed=3) for prompt in prompts))

    assert asyncio.run(everyone()) == [generate(*embedded, prompt, max_tokens=24).text for prompt in prompts]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 2}, "n must be 1. Send several requests instead."),
        ({"logprobs": True}, "A diffusion model has no log-probabilities"),
        ({"logit_bias": {"5": 1}}, "logit_bias is not supported"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "Tools are not supported"),
        ({"response_format": {"type": "json_object"}}, "JSON schemas are not supported"),
        ({"temperature": -1}, "The temperature must be 0, or from 0.0001 to 10000.0, not -1."),
        ({"temperature": "hot"}, "temperature must be a number, not 'hot'."),
        ({"max_tokens": 0}, "max_tokens must be from 1"),
        ({"max_tokens": 1.5}, "max_tokens must be a whole number, not 1.5."),
        ({"messages": [{"role": "usr", "content": "x"}]}, "The role must be system, user or assistant, not 'usr'."),
        ({"messages": [{"role": "user", "content": "Anna " * 600}]}, "exceed this model's context of 640"),
        ({"stop": 5}, "stop must be a text or a list, not 5."),
        ({"stop": [5]}, "stop must be a list of texts"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "Images are not supported"),
        ({"messages": [{"role": "user"}]}, "must be a text or a list of texts"),
        ({"decoder": "fast"}, "decoder must be one of"),
        ({"decoder": "d3llm", "factor": 1}, "factor"),
        ({"threshold": "x"}, "threshold"),
        ({"decoder": "sdar"}, "block-causal"),
        ({"stream": "yes"}, "stream must be true or false, not 'yes'."),
        ({"end_penalty": 10**400}, "end_penalty is too large."),
        ({"temperature": 10**4200}, "temperature is too large."),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_fields_get_one_sentence(server: Served, fields: dict[str, Any], message: str, stream: bool) -> None:
    body = {"messages": CHAT, "stream": stream, **fields}
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], message in error["message"]) == (400, "invalid_request_error", True), (
        error
    )


def test_options_of_requests(client: openai.OpenAI, server: Served) -> None:
    def run(**options: Any) -> Any:
        return client.chat.completions.create(model="m", messages=CHAT, **options)

    slow = run(extra_body={"decoder": "vanilla", "block_size": 8})
    assert slow.model_extra["x_d3mlx"]["forwards"] > 15
    assert slow.model_extra["x_d3mlx"]["decoder"] == "vanilla"
    cut = run(stop=["The answer"])
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (ANSWER.split("The answer")[0], "stop")
    assert run(max_completion_tokens=8).choices[0].finish_reason == "length"
    # Clients that always ask for thousands of tokens get as many as fit.
    assert run(max_tokens=4096).choices[0].message.content == ANSWER
    assert (
        run(temperature=1.0, seed=7).choices[0].message.content
        == run(temperature=1.0, seed=7).choices[0].message.content
    )
    parts = [
        {"role": "developer", "content": "Solve."},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    expected = generate(*load(), [{"role": "system", "content": "Solve."}, *CHAT]).text
    reply = client.chat.completions.create(model="m", messages=parts)  # type: ignore[arg-type]
    assert reply.choices[0].message.content == expected


def test_editors_fill_holes(server: Served) -> None:
    """The requests of Continue's two providers, and of llama.cpp's clients."""
    prefix, suffix = f"{QUESTION} {BEGINNING}", ENDING
    expected = generate(*load(), Document.between(prefix, suffix), max_tokens=16).text
    body = {"model": "m", "prompt": prefix, "suffix": suffix, "max_tokens": 16, "stream": True}
    penalties = {"frequency_penalty": 1, "presence_penalty": 1.5, "top_p": 1, "stop": ["\n\n", "\n \n"]}
    events = chunks(httpx.post(f"{server.url}/v1/fim/completions", json=body | penalties))
    parts = [event["choices"][0] for event in events]
    assert "".join(part["text"] for part in parts) == "".join(part["delta"]["content"] for part in parts) == expected
    assert events[-1]["x_d3mlx"]["ignored"] == ["frequency_penalty", "presence_penalty"]
    assert [event["choices"][0]["finish_reason"] is None for event in events] == [True] * (len(events) - 1) + [False]
    reply = httpx.post(f"{server.url}/v1/completions", json={**body, "stream": False}).json()
    assert reply["choices"][0]["text"] == expected
    none = httpx.post(f"{server.url}/v1/completions", json={**body, "suffix": "<|endoftext|>", "stream": False}).json()
    assert none["choices"][0]["text"] == generate(*load(), prefix, max_tokens=16).text
    llama = {"input_prefix": prefix, "input_suffix": suffix, "prompt": "", "n_predict": 16, "cache_prompt": True}
    reply = httpx.post(f"{server.url}/infill", json=llama).json()
    assert (reply["content"], reply["stop"], reply["prompt"]) == (expected, True, prefix)
    assert reply["stop_type"] in ("eos", "limit") and reply["tokens_predicted"] > 0
    extra = {**llama, "input_extra": [{"filename": "a.txt", "text": "Iris"}], "stream": True}
    lines = httpx.post(f"{server.url}/infill", json=extra).text.strip().split("\n\n")
    streamed = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [part["stop"] for part in streamed] == [False] * (len(streamed) - 1) + [True]
    assert all(set(part) == {"content", "stop"} for part in streamed)


def test_a_key_and_origins(embedded: Any) -> None:
    with served(*embedded, api_key="secret") as running:
        for path in ("/v1/models", "/metrics"):
            assert httpx.get(running.url + path).status_code == 401
            good = httpx.get(running.url + path, headers={"Authorization": "Bearer secret"})
            assert good.status_code == 200
        assert httpx.post(f"{running.url}/v1/chat/completions", json={}).status_code == 401
        assert httpx.get(f"{running.url}/health").status_code == 200
        for origin, allowed in (("https://allowed.example", True), ("https://other.example", False)):
            reply = httpx.get(f"{running.url}/health", headers={"Origin": origin})
            assert ("access-control-allow-origin" in reply.headers) == allowed


def test_a_block_causal_model_reuses_prefixes(tmp_path: Any) -> None:
    model, tokenizer = load(sdar_chat(tmp_path))
    with served(model, tokenizer, prefix_bytes=1 << 22) as running:
        url = f"{running.url}/v1/completions"
        prompt, cached = "a" * 40, []
        for _ in range(3):
            reply = httpx.post(url, json={"prompt": prompt, "max_tokens": 12}).json()
            text = reply["choices"][0]["text"]
            assert text == generate(model, tokenizer, prompt, max_tokens=12).text
            cached.append(reply["usage"]["prompt_tokens_details"]["cached_tokens"])
            prompt += f"{text}bcd"
        assert cached[0] == 0 and 40 <= cached[1] < cached[2]
        # Quantized keys and values are neither kept nor mixed with others.
        quantized = {"prompt": prompt, "max_tokens": 12, "kv_bits": 8}
        for body in (quantized, {**quantized, "kv_bits": None}, quantized):
            reply = httpx.post(url, json=body)
            assert reply.status_code == 200, reply.text
            options = {"kv_bits": 8} if body["kv_bits"] else {}
            expected = generate(model, tokenizer, prompt, preset("sdar", **options), max_tokens=12).text
            assert reply.json()["choices"][0]["text"] == expected
        assert 0 < running.worker.prefixes.nbytes <= 1 << 22  # type: ignore[union-attr]


def test_metrics_count(server: Served) -> None:
    def value(name: str) -> float:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        return float(next((line.split()[-1] for line in lines if line.startswith(name)), "0"))

    before = value("d3mlx_tokens_total"), value('d3mlx_answers_total{end="stop"}'), value("d3mlx_forwards_total")
    httpx.post(f"{server.url}/v1/chat/completions", json={"messages": CHAT})
    after = value("d3mlx_tokens_total"), value('d3mlx_answers_total{end="stop"}'), value("d3mlx_forwards_total")
    assert [b - a for a, b in zip(before, after, strict=True)] == [20, 1, 3]
    assert value("d3mlx_running") == value("d3mlx_waiting") == 0
