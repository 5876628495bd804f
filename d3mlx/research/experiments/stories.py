"""Measure a model of stories: known and unknown words and wordings, two problems at once, holes, own questions.

    python -m d3mlx.research.experiments.stories FOLDER [--count 1000]

The own questions were written by hand, before any training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from d3mlx import Selective, Vanilla, generate, load
from d3mlx.data import stories
from d3mlx.data.stories.stories import answer_of, is_correct, page, problem
from d3mlx.data.stories.words import Words
from d3mlx.decoding.decoder import Preset
from d3mlx.evaluate.records import score
from d3mlx.evaluate.run import EvalModel, solve
from d3mlx.evaluate.tasks.base import Ask, Verdict
from d3mlx.research.batches import CANVAS
from d3mlx.research.experiments.holes import FIRST, Task, measure_way
from d3mlx.research.experiments.pages import table
from d3mlx.research.script import script
from d3mlx.research.story_batches import QUESTIONS

DECODERS: dict[str, Preset] = {
    "one token per forward, blocks of 8": Vanilla(block_size=8),
    "one token per forward, blocks of 32": Vanilla(),
    "selective": Selective(),
}
OWN = Path(stories.__file__).with_name("own_questions.jsonl")


@dataclass
class Stories:
    """A task of held-out stories. questions: number of problems per prompt; an answer needs all of them."""

    words: Words = "known"
    wordings: Words = "known"
    questions: int = 1
    name: str = "stories"
    stop: tuple[str, ...] = ()
    size: int | None = None

    def problem(self, index: int) -> Any:
        return page(index, self.questions, "held-out", words=self.words, wordings=self.wordings)

    def ask(self, index: int) -> Ask:
        """Return a problem as a question."""
        return Ask(self.problem(index).question, chat=True)

    def score(self, index: int, text: str) -> Verdict:
        """Judge the text of an answer."""
        return Verdict(is_correct(self.problem(index), text), answer_of(text, self.questions))


SETS = {
    "known": Stories(),
    "unknown words": Stories(words="unknown"),
    "unknown wordings": Stories(wordings="unknown"),
    "two problems": Stories(questions=QUESTIONS),
}


def own_answers(model: Any, tokenizer: Any) -> list[tuple[str, str, str, bool]]:
    """Return question, text, correct answer and whether the text is correct, for every own question."""
    results = []
    for line in OWN.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        text = generate(model, tokenizer, [{"role": "user", "content": row["question"]}], max_tokens=CANVAS).text
        results.append((row["question"], text, row["answer"], answer_of(text) == row["answer"]))
    return results


def measure(
    folder: Annotated[str, typer.Argument(help="Folder of the model.")],
    count: Annotated[int, typer.Option(min=1, help="Held-out problems of each kind.")] = 1000,
    only: Annotated[str | None, typer.Option(help="Measure only this kind, for example known.")] = None,
) -> None:
    """Measure the model, and print tables and the answers to the own questions."""
    model, tokenizer = load(folder)
    rows = []
    for name, task in SETS.items():
        if only not in (None, name):
            continue
        subject = EvalModel(model, tokenizer, max_tokens=task.questions * CANVAS)
        for decoder, preset in DECODERS.items():
            total = score(list(solve(subject, task, preset, range(count // task.questions))))
            figures = f"{total.accuracy:.1%}", f"{total.tokens_per_forward:.2f}", f"{total.rows_per_token:.1f}"
            rows.append([name, decoder, *figures])
            typer.echo(f"{rows[-1]}", err=True)
    typer.echo(table(["problems", "decoder", "correct", "TPF", "RPT"], rows))
    if only is None:
        tasks = [Task.of(problem(FIRST + i, "held-out"), i) for i in range(count)]
        ways = [measure_way(model, tokenizer, Selective(), tasks, way).text() for way in ("fixed", "free")]
        typer.echo(f"\nHoles, size given and free length: {'; '.join(ways)}")
    own = own_answers(model, tokenizer)
    typer.echo(f"\nOwn questions: {sum(correct for *_, correct in own)} of {len(own)} correct.")
    for question, text, answer, correct in own:
        typer.echo(f"{'right' if correct else 'WRONG'}: {question} -> {text} ({answer})")


if __name__ == "__main__":
    script(measure)
