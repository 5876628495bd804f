"""Settings of model cards: shown by info, taken by one flag, overruled by any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from d3mlx import Sampling, Vanilla, generate, load
from d3mlx.canvas import Canvas
from d3mlx.engine import decode
from tests.builders import write_dream, write_llada
from tests.fakes import TableModel

CARDS: dict[str, dict[str, Any]] = {
    "Dream-v0-Instruct-7B": {"temperature": 0.2, "top_p": 0.95, "max_tokens": 512},
    "Dream-Coder-v0-Instruct-7B-4bit": {"temperature": 0.1, "end_penalty": 3.0, "max_tokens": 512},
    "DiffuCoder-7B-cpGRPO-8bit": {"temperature": 0.4, "top_p": 0.95},
    "DiffuCoder-7B-Base": {"temperature": 0.2, "top_p": 0.95},
    "d3LLM_Dream": {"options": {"d3llm": {"threshold": 0.5, "cache_delay": 10000}}},
    "d3LLM_Dream_Coder": {"options": {"d3llm": {"threshold": 0.5, "cache_delay": 32}}},
}


@pytest.mark.parametrize("name", CARDS)
def test_info_shows_what_the_card_says(d3mlx: Any, tmp_path: Path, name: str) -> None:
    folder = write_dream(tmp_path / name)
    assert json.loads(d3mlx("info", str(folder), "--json").out)["recommended"] == CARDS[name]
    text = " ".join(d3mlx("info", str(folder)).out.split())
    assert "(--recommended)" in text
    for setting, value in CARDS[name].items():
        assert setting == "options" or f"--{setting.replace('_', '-')} {value}" in text


def test_one_flag_takes_them_and_others_win(d3mlx: Any, tmp_path: Path) -> None:
    def config(folder: Path, *options: str) -> dict[str, Any]:
        done = d3mlx("generate", "hi", "--model", str(folder), "--json", "--recommended", *options)
        assert done.status == 0, done.err
        found: dict[str, Any] = json.loads(done.out.splitlines()[-1])["config"]
        return found

    coder = write_dream(tmp_path / "Dream-Coder-v0-Instruct-7B", max_position_embeddings=1024)
    found = config(coder, "--max-tokens", "8")
    assert (found["sampling"]["temperature"], found["sampling"]["end_penalty"]) == (0.1, 3.0)
    assert found["max_tokens"] == 8
    assert config(coder, "--temperature", "0", "--max-tokens", "8")["sampling"]["temperature"] == 0
    student = write_dream(tmp_path / "d3LLM_Dream")
    found = config(student, "--max-tokens", "8")
    assert (found["decoder"], found["policies"]["acceptance"]["threshold"]) == ("d3llm", 0.5)
    assert found["policies"]["cache"]["delay"] == 10000
    assert config(student, "--threshold", "0.2", "--max-tokens", "8")["policies"]["acceptance"]["threshold"] == 0.2
    own = config(student, "--decoder", "selective", "--max-tokens", "8")
    assert (own["decoder"], own["policies"]["acceptance"]["threshold"]) == ("selective", 0.4)
    unknown = d3mlx("generate", "hi", "--model", str(write_llada(tmp_path / "model")), "--recommended")
    assert (unknown.status, unknown.out) == (1, "")
    assert "There are no recommended settings" in unknown.err


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("decoder", ["vanilla", "selective", "d3llm"])
def test_a_penalty_keeps_the_end_away(tmp_path: Path, family: str, decoder: str) -> None:
    """Infinity never draws the end token of config.json, whose logits a finite penalty lowers by that much."""
    write = write_llada if family == "llada" else write_dream
    model, tokenizer = load(write(tmp_path / "model"))
    end = model.args.eos_token_id
    table = mx.zeros((40, model.args.logit_width)).at[:, end].add(5.0)
    fake: Any = TableModel(np.array(table), family)
    for penalty, ends in ((0.0, True), (4.0, True), (6.0, False), (np.inf, False)):
        canvas = Canvas.for_prompt([1, 2, 3], 8, model.args.mask_token_id, (end,))
        list(decode(fake, canvas, Vanilla(steps=4).build(family), Sampling(end_penalty=penalty)))
        assert (canvas.tokens[3:] == end).any() == ends, penalty
    result = generate(model, tokenizer, "x", decoder, max_tokens=12, sampling=Sampling(end_penalty=np.inf))
    assert end not in result.tokens


def test_ends_commit_last_under_the_vanilla_sampler() -> None:
    """LLaDA's confidence_eos_eot_inf: rows that took an end token wait for all others."""
    logits = np.zeros((12, 20), np.float32)
    logits[3:, 7] = 2.0 + np.arange(9)
    logits[5:8, 7], logits[5:8, 19] = 0.0, 50.0
    orders = []
    for ends in ("ranked", "last"):
        canvas = Canvas.for_prompt([1, 2, 3], 9, 18, (19,), early_stop=False)
        decoder = Vanilla(block_size=9, ends=ends).build("llada")  # type: ignore[arg-type]
        steps = decode(TableModel(logits, "llada"), canvas, decoder)
        orders.append([int(step.positions[0]) for step in steps])
    assert set(orders[0][:3]) == {5, 6, 7}
    assert orders[1] == [11, 10, 9, 8, 4, 3, 5, 6, 7]
