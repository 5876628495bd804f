"""Abilities of a model of stories: known and unknown words and wordings, two problems at once, own questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from d3mlx import Selective, Vanilla, generate
from d3mlx.data import stories
from d3mlx.data.stories.problem import answer_of
from d3mlx.decoding.decoder import Preset
from d3mlx.evaluate.records import score
from d3mlx.evaluate.run import EvalModel, solve
from d3mlx.evaluate.tasks import TaskOptions
from d3mlx.evaluate.tasks.embedded import Embedded, Kind
from d3mlx.research.batches import CANVAS, QUESTIONS

COLUMNS = ["problems", "decoder", "correct answers", "tokens per forward", "rows per token"]

KINDS = {
    "known words and wordings": Kind(),
    "unknown names and things": Kind(words="unknown"),
    "unknown wordings": Kind(wordings="unknown"),
    "two problems at once": Kind(QUESTIONS),
}

DECODERS: dict[str, Preset] = {
    "one token per forward, blocks of 8": Vanilla(block_size=8),
    "selective": Selective(),
}
FOR_KNOWN: dict[str, Preset] = {"one token per forward, blocks of 32": Vanilla()}
"""A slow decoder, which is measured with known words and wordings only."""

OWN = Path(stories.__file__).with_name("own_questions.jsonl")
"""Questions that were written by hand, before any training."""


def abilities(model: Any, tokenizer: Any, count: int) -> Iterator[list[str]]:
    """Yield rows of a table with COLUMNS, each for the first `count` held-out problems of a kind."""
    for kind_name, kind in KINDS.items():
        task = Embedded(TaskOptions(), "llada", kind)
        subject = EvalModel(model, tokenizer, max_tokens=kind.questions * CANVAS)
        prompts = max(1, count // kind.questions)
        for name, decoder in (DECODERS | (FOR_KNOWN if kind == Kind() else {})).items():
            solved = solve(subject, task, decoder, range(prompts))
            total = score(list(track(solved, f"{kind_name}, {name}", total=prompts)))
            figures = f"{total.accuracy:.1%}", f"{total.tokens_per_forward:.2f}", f"{total.rows_per_token:.1f}"
            yield [kind_name, name, *figures]


@dataclass(frozen=True)
class Answer:
    """An answer to an own question. right: the correct number."""

    question: str
    text: str
    right: str

    @property
    def correct(self) -> bool:
        return answer_of(self.text) == self.right


def own_answers(model: Any, tokenizer: Any) -> list[Answer]:
    """Return the answers to the own questions with the default decoder."""
    rows = [json.loads(line) for line in OWN.read_text(encoding="utf-8").splitlines()]
    chats = [[{"role": "user", "content": row["question"]}] for row in rows]
    texts = [generate(model, tokenizer, chat, max_tokens=CANVAS).text for chat in chats]
    return [Answer(row["question"], text, row["answer"]) for row, text in zip(rows, texts, strict=True)]
