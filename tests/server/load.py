"""Load on the server: many clients with random arrivals, lengths and disconnects.

    python -m tests.server.load [--seconds 600] [--clients 64]

The server is a process of its own with the bundled model. Every answer is compared with what the request gets alone.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import typer

from d3mlx import generate, load
from d3mlx.data.stories.stories import problem

REQUESTS = 24
"""Different requests. Each is answered alone before the load begins."""

LEAVING = 0.2
"""Share of the clients that close the connection in the middle of a stream."""

PAUSE = 0.5
"""Mean time in seconds between two requests of a client."""


@dataclass(frozen=True)
class Wanted:
    """A request and its answer alone."""

    body: dict[str, Any]
    text: str


@dataclass
class Report:
    """Results of the clients. waits: seconds until the end of each complete answer. memory: of the server, in bytes."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    left: int = 0
    waits: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    @property
    def answers_per_second(self) -> float:
        return len(self.waits) / self.seconds

    seconds: float = 1.0


def wanted_requests() -> list[Wanted]:
    """Return requests of different lengths with their answers."""
    model, tokenizer = load()
    out = []
    for i in range(REQUESTS):
        messages = [{"role": "user", "content": problem(i, "held-out").question}]
        length = random.Random(i).choice((8, 24, 64))
        text = generate(model, tokenizer, messages, max_tokens=length).text
        out.append(Wanted({"messages": messages, "max_tokens": length, "model": "embedded"}, text))
    return out


@contextmanager
def server() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `d3mlx serve` on a free port, and yield its address and the process."""
    command = [str(Path(sys.executable).with_name("d3mlx")), "serve", "--port", "0", "--max-waiting", "48"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(match[0] for line in process.stderr if (match := re.search(r"http://[\d.]+:\d+", line)))
        yield address, process
    finally:
        process.terminate()
        process.wait(timeout=30)


def resident(process: subprocess.Popen[str]) -> int:
    """Return the resident memory of a process in bytes, 0 where the system does not tell."""
    with suppress(OSError):
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        return pages * 4096
    return 0


async def one_request(client: httpx.AsyncClient, wanted: Wanted, report: Report, rng: random.Random) -> None:
    """Send a request and compare the answer. Some clients leave in the middle."""
    streams, leaves = rng.random() < 0.5, rng.random() < LEAVING
    began, text = time.monotonic(), ""
    async with client.stream("POST", "/v1/chat/completions", json={**wanted.body, "stream": streams}) as reply:
        report.statuses[reply.status_code] += 1
        if reply.status_code != 200:
            return
        if leaves:
            report.left += 1
            return
        if streams:
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    choices = json.loads(line.removeprefix("data: "))["choices"]
                    text += choices[0]["delta"]["content"] if choices else ""
        else:
            text = json.loads(await reply.aread())["choices"][0]["message"]["content"]
    report.waits.append(time.monotonic() - began)
    if text != wanted.text:
        report.wrong.append((text, wanted.text))


async def press(
    address: str, process: subprocess.Popen[str], requests: list[Wanted], clients: int, seconds: float, pause: float
) -> Report:
    """Run clients that send requests for some time, and return what they saw."""
    report, end, began = Report(), time.monotonic() + seconds, time.monotonic()

    async def person(number: int, client: httpx.AsyncClient) -> None:
        rng = random.Random(number)
        while time.monotonic() < end:
            await asyncio.sleep(rng.expovariate(1 / pause) if pause else 0)
            await one_request(client, rng.choice(requests), report, rng)

    async def watch() -> None:
        while time.monotonic() < end:
            report.memory.append(resident(process))
            await asyncio.sleep(seconds / 20)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:
        await asyncio.gather(watch(), *(person(number, client) for number in range(clients)))
    report.seconds = time.monotonic() - began
    return report


def measure(seconds: float, clients: int) -> tuple[Report, Report]:
    """Return the reports of a single client and of many, one after the other, on the same server."""
    requests = wanted_requests()
    with server() as (address, process):
        single = asyncio.run(press(address, process, requests, 1, seconds / 4, 0))
        many = asyncio.run(press(address, process, requests, clients, seconds, PAUSE))
        idle = httpx.get(f"{address}/metrics").text
        assert "d3mlx_running 0" in idle and "d3mlx_waiting 0" in idle
    return single, many


def main(seconds: float = 600, clients: int = 64) -> None:
    """Print what the clients saw."""
    for name, report in zip(("one client", f"{clients} clients"), measure(seconds, clients), strict=True):
        waits = sorted(report.waits)
        typer.echo(
            f"{name}: statuses {dict(report.statuses)}, {report.left} left, {len(report.wrong)} wrong texts, "
            f"{report.answers_per_second:.1f} answers/s, wait median {waits[len(waits) // 2]:.2f} s, "
            f"longest {waits[-1]:.2f} s, memory {report.memory[len(report.memory) // 4] >> 20} to "
            f"{report.memory[-1] >> 20} MiB"
        )


if __name__ == "__main__":
    typer.run(main)
