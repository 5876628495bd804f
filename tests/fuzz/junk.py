"""Random values, and random changes of JSON values, bytes and safetensors files."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    *(0, -1, 1, 2, 3, 64, 4096, 10**9, -(10**9), 2**31, 2**63, 2**64, 10**30, 10**400),
    *(0.0, 0.5, 1e-30, 1e308, -1.5, float("nan"), float("inf")),
    *("", "x", "1", "true", "\x1b[31mred\x1b[0m", "\ud800", "é", "[/bold]", "a\nb", "../..", "y" * 5000),
    *([], {}, [1], [[]], [None], {"a": 1}, {"": {}}, ["a", 1], [-1, 2]),
)
"""Values that a field may have by mistake or by malice."""

DEEP = 20_000
"""Depth of nested JSON that no parser follows."""


def value(rng: Random) -> Any:
    """Return a random value of JSON."""
    return copy.deepcopy(rng.choice(VALUES))


def places(root: Any) -> list[tuple[Any, Any]]:
    """Return every container and key (or index) inside a JSON value."""
    found: list[tuple[Any, Any]] = []
    waiting = [root]
    while waiting:
        inside = waiting.pop()
        keys = list(inside) if isinstance(inside, dict) else range(len(inside)) if isinstance(inside, list) else ()
        found += [(inside, key) for key in keys]
        waiting += [inside[key] for key in keys]
    return found


def changed_number(rng: Random, number: Any) -> Any:
    return rng.choice((number + 1, number - 1, -number, number * 2, number * 1000, number // 2, str(number)))


def changed(rng: Random, root: Any, near: float = 0.0) -> Any:
    """Return a JSON value with one to three random changes. near: share of changes in the outermost container."""
    root = copy.deepcopy(root)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        known = places(root)
        if not known:
            return value(rng)
        outer = [place for place in known if place[0] is root]
        inside, key = rng.choice(outer if rng.random() < near and outer else known)
        old, kind = inside[key], rng.random()
        if kind < 0.4:
            inside[key] = value(rng)
        elif kind < 0.55:
            del inside[key]
        elif kind < 0.7 and isinstance(inside, dict):
            inside[rng.choice((f"{key}x", "", "\x1b[2J", "a" * 3000))] = inside.pop(key)
        elif kind < 0.85 and isinstance(old, int | float) and not isinstance(old, bool):
            inside[key] = changed_number(rng, old)
        else:
            other, place = rng.choice(known)
            inside[key] = copy.deepcopy(other[place]) if place in other or isinstance(other, list) else value(rng)
    return root


def text(rng: Random, root: Any) -> bytes:
    """Return a JSON value as text, sometimes nested too deeply or with damaged bytes."""
    encoded = json.dumps(root).encode()
    kind = rng.random()
    if kind < 0.02:
        return b"[" * DEEP + b"]" * DEEP
    if kind < 0.04:
        return encoded.replace(b":", b":" + b'{"a":' * DEEP, 1)
    return damaged(rng, encoded) if kind < 0.15 else encoded


def damaged(rng: Random, content: bytes) -> bytes:
    """Return bytes that are cut, flipped, doubled, or something else."""
    at = rng.randrange(len(content) + 1)
    changes: tuple[Callable[[], bytes], ...] = (
        lambda: content[:at],
        lambda: content[at:],
        lambda: content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at:],
        lambda: content[:at] + rng.randbytes(rng.randrange(1, 5)) + content[at + 4 :],
        lambda: content + content,
        lambda: content[:at] + b"\x00" * 16 + content[at:],
        lambda: b"",
        lambda: b"version https://git-lfs.github.com/spec/v1\n",
        lambda: rng.randbytes(200),
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.decode(errors="ignore").encode("utf-16"),
    )
    return rng.choice(changes)()


def weights(rng: Random, content: bytes) -> bytes:
    """Return a safetensors file with a changed header, a wrong length or damaged bytes."""
    size = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + size], content[8 + size :]
    kind = rng.random()
    if kind < 0.2:
        return damaged(rng, content)
    if kind < 0.3:
        length = rng.choice((0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1))
        return length.to_bytes(8, "little") + header + data
    if kind < 0.4:
        return content[:8] + header + damaged(rng, data)
    if kind < 0.5:
        return content[:8] + header + rng.choice((b"\xff", b"\x7f", b"\x00")) * len(data)
    new = text(rng, changed(rng, json.loads(header)))
    return len(new).to_bytes(8, "little") + new + data
