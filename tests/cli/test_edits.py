"""The command line shows the edits of LLaDA2.1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.replicas import llada2


def test_json_lists_edits(d3mlx: Any, tmp_path: Path) -> None:
    folder = llada2(tmp_path / "model")
    options = ["--threshold", "0.02", "--editing-threshold", "0.01", "--block-size", "8", "--max-tokens", "12"]
    lines = d3mlx("generate", "hello", "--model", str(folder), *options, "--json").out.splitlines()
    *steps, last = [json.loads(line) for line in lines]
    tokens: dict[int, int] = {}
    for step in steps:
        for position, before, after in step["edits"]:
            assert tokens.get(position, 260) == before
            tokens[position] = after
        for position, token in zip(step["positions"], step["tokens"], strict=True):
            assert tokens[position] == token
    assert last["tokens"] == [tokens[position] for position in sorted(tokens)][: len(last["tokens"])]
    assert last["stats"]["tokens"] == len(last["tokens"])
