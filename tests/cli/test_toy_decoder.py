"""A new decoder is one file and one line in the registry: flags, errors and its page follow from its options."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from d3mlx.decoding.acceptance import STEPS, Quota
from d3mlx.decoding.cache_policy import NoCache
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.options import Options, option
from d3mlx.decoding.presets import PRESETS
from d3mlx.decoding.schedule import SequentialBlocks
from d3mlx.models import traits_of


@dataclass(frozen=True)
class Coins(Options):
    """Commit positions drawn at random."""

    hurry: int | None = option("Steps for the answer.", lambda traits: 6 if traits.shift else 4, STEPS, common=True)
    side: Literal["heads", "tails"] | None = option("Which side wins.", "heads")
    steps: int | None = option("The same by another name.", None, STEPS, note="none")

    def build(self, family: str) -> Decoder:
        chosen = self.filled(traits_of(family))
        return Decoder(SequentialBlocks(8), Quota("random", self.steps or chosen.hurry), NoCache())


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "coins", Coins)


def test_a_toy_decoder_runs_from_the_command_line(d3mlx: Any, llada: str, dream: str) -> None:
    def steps(model: str, *options: str) -> list[int]:
        run = ["generate", "hi", "--model", model, "--decoder", "coins", "--max-tokens", "8", "--no-early-stop"]
        done = d3mlx(*run, "--json", *options)
        assert done.status == 0, done.err
        return [len(json.loads(line)["positions"]) for line in done.out.splitlines()[:-1]]

    assert steps(llada) == [2, 2, 2, 2]
    assert steps(dream) == [2, 2, 1, 1, 1, 1]
    assert steps(llada, "--hurry", "2", "--side", "tails") == [4, 4]


def test_its_options_are_told_and_checked(d3mlx: Any, llada: str) -> None:
    assert "coins: Commit positions drawn at random." in d3mlx("decoders", "coins").out
    assert "4 (llada), 6 (dream)" in d3mlx("decoders", "coins").out
    text = " ".join(d3mlx("generate", "--help").out.replace("│", " ").split())
    assert "--hurry <int> coins: Steps for the answer." in text
    assert "--side" not in text
    wrong = d3mlx("generate", "hi", "--model", llada, "--decoder", "coins", "--hurry", "0")
    assert (wrong.status, wrong.out) == (1, "")
    assert wrong.err == "Error: hurry must be a number of steps, 1 to 1,000,000, not 0.\n"
    assert d3mlx("generate", "hi", "--model", llada, "--decoder", "coins", "--side", "edge").status == 2
    other = d3mlx("generate", "hi", "--model", llada, "--decoder", "d3llm", "--side", "heads")
    assert other.err.startswith("Error: Decoder d3llm does not take side. Its options are activation, ")


def test_it_is_evaluated_with_the_same_flags(d3mlx: Any, llada: str, tmp_path: Any) -> None:
    numbers = tmp_path / "numbers.json"
    run = ["eval", "--model", llada, "--decoder", "coins", "--count", "1", "--max-tokens", "8", "--side", "tails"]
    done = d3mlx(*run, "--steps", "2,4", "--out", str(tmp_path / "run"), "--json", str(numbers))
    assert done.status == 0, done.err
    written = json.loads(numbers.read_text())
    assert written["config"]["options"] == {"side": "tails"}
    assert [point["forwards"] for point in written["points"]] == [2, 4]
