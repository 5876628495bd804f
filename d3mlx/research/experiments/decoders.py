"""Measure all decoders on the embedded task and on a longer form of it: the tables of docs/results/selective.md.

The model is the teacher, which was not distilled for any decoder.

python -m d3mlx.research.experiments.decoders [--work FOLDER] [--task long] [--part 1/2] [--count N]
python -m d3mlx.research.experiments.decoders --write docs/results/selective.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from d3mlx import load
from d3mlx.checkpoints.loader import TEACHER
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.decoder import Preset
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.options import check_choice
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.vanilla import Vanilla
from d3mlx.errors import ConfigError, DataError
from d3mlx.evaluate.aup import TOLERANCE, aup, near
from d3mlx.evaluate.run import EvalModel
from d3mlx.evaluate.tasks import TaskOptions
from d3mlx.evaluate.tasks.embedded import Embedded, Kind
from d3mlx.files import fingerprint
from d3mlx.research.batches import CANVAS, QUESTIONS, SHOTS
from d3mlx.research.experiments.journal import Answers, Part, finished, measure
from d3mlx.research.experiments.pages import put, table
from d3mlx.research.script import script

REFERENCE = "d3llm, no cache"
DECODERS: dict[str, Preset] = {
    "fast-dllm": FastDLLM(),
    REFERENCE: D3LLM("none"),
    "d3llm": D3LLM(),
    "selective": Selective(),
}
SHORT_ONLY: dict[str, Preset] = {
    "vanilla": Vanilla(),
    "d3llm, no cache, blocks of selective": D3LLM("none", block_size=8, block_add=0.5),
}
"""Slow decoders, which only the short task includes."""

CURVES: dict[str, dict[float, Preset]] = {
    "fast-dllm": {value: FastDLLM(threshold=value) for value in (0.98, 0.9, 0.8, 0.6)},
    "d3llm": {value: D3LLM(threshold=value) for value in (0.1, 0.2, 0.4, 0.7)},
    "selective": {value: Selective(value) for value in (0.1, 0.2, 0.4, 0.7)},
}
"""Presets of each decoder by threshold, for AUP."""


@dataclass(frozen=True)
class Variant:
    """One form of the task. questions: problems per prompt. shots: worked examples before them."""

    questions: int
    shots: int
    decoders: Mapping[str, Preset]

    @property
    def canvas(self) -> int:
        return self.questions * CANVAS

    def problems(self, count: int) -> range:
        """Return the prompts' numbers for `count` held-out problems. Raises ConfigError if `count` is too small."""
        if count < self.questions:
            raise ConfigError(
                f"Invalid --count {count}. Use at least {self.questions}, the number of problems in a prompt."
            )
        return range(count // self.questions)

    @property
    def words(self) -> str:
        at_once = "" if self.questions == 1 else f", {self.questions} at once"
        return f"{at_once}, {f'after {self.shots} worked examples' if self.shots else 'without examples'}"


TASKS = {"short": Variant(1, 0, DECODERS | SHORT_ONLY), "long": Variant(QUESTIONS, SHOTS, DECODERS)}
"""The long form also has longer answers, so that the forwards after the first pass over the prompt count."""


def point(decoder: str, threshold: float) -> str:
    return f"{decoder} at {threshold:g}"


POINTS = {point(decoder, at): preset for decoder, points in CURVES.items() for at, preset in points.items()}


def solve(work: Path, name: str, part: Part, count: int, on_curves: int) -> None:
    """Solve `count` problems with the decoders of the table, and the first `on_curves` with those of the curves."""
    variant = TASKS[name]
    model = EvalModel(*load(TEACHER), max_tokens=variant.canvas)
    task = Embedded(TaskOptions(shots=variant.shots), "llada", Kind(variant.questions))
    for kind, presets, problems in (("table", variant.decoders, count), ("curves", POINTS, min(count, on_curves))):
        about = {"model": fingerprint(TEACHER), "task": variant.words, "kind": kind}
        path = work / f"{name}-{kind}" / part.file
        measure(model, task, presets, part.of(variant.problems(problems)), path, about)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main_table(measured: Mapping[str, Answers]) -> str:
    """Return a table of accuracy, paired difference to the reference, TPF, RPT and seconds."""
    rows = []
    for name, answers in measured.items():
        score, change = answers.score, answers.against(measured[REFERENCE])
        low, high = score.interval
        rows.append(
            [
                name,
                f"{percent(score.accuracy)} ({100 * low:.1f} to {100 * high:.1f})",
                "" if name == REFERENCE else f"{100 * change.low:+.1f} to {100 * change.high:+.1f}",
                f"{score.tokens_per_forward:.2f}",
                f"{score.rows_per_token:.1f}",
                f"{answers.seconds_per_problem:.3f}",
            ]
        )
    reference = f"points against {REFERENCE}"
    return table(["decoder", "correct (95 %)", reference, "TPF", "RPT", "CPU seconds per answer"], rows)


def areas(measured: Mapping[str, Answers]) -> dict[str, float]:
    """Return the AUP of each curve, relative to the best accuracy. It excludes points far below the first point."""
    best = 100 * max(answers.score.accuracy for answers in measured.values())
    values = {}
    for name, points in CURVES.items():
        scores = [measured[point(name, at)].score for at in points]
        curve = [(score.tokens_per_forward, 100 * score.accuracy) for score in scores]
        values[name] = aup(near(curve), best)
    return values


def complete_answers(folder: Path, names: Iterable[str], problems: range) -> dict[str, Answers]:
    """Return the answers of every decoder to these problems. Raises DataError if an answer is missing."""
    measured = finished(folder, names, problems)
    if measured is None:
        raise DataError(
            f"{folder} is not finished. Run all parts of the measurement to the end, with equal --count and --curves."
        )
    return measured


def section(work: Path, name: str, count: int, on_curves: int) -> str:
    """Return the generated text of the page about one task."""
    variant = TASKS[name]
    measured = complete_answers(work / f"{name}-table", variant.decoders, variant.problems(count))
    curves = complete_answers(work / f"{name}-curves", POINTS, variant.problems(min(count, on_curves)))
    answers, tokens = measured[REFERENCE].score.problems, measured[REFERENCE].score.prefill_rows
    problems = f"The table is for {answers * variant.questions:,} held-out problems{variant.words}."
    if variant.questions > 1:
        problems += f" Each of the {answers:,} answers is correct only if all its results are."
    listed = "\n".join(f"- {name}: {value:.0f}" for name, value in areas(curves).items())
    return f"""{problems} Prompts have {tokens / answers:.0f} tokens, and the canvas has {variant.canvas}.

{main_table(measured)}

These AUP values are for the first {min(count, on_curves)} problems, with four thresholds each. They exclude thresholds
that lose more than {TOLERANCE:g} points of accuracy.

{listed}"""


def compare(
    work: Annotated[Path, typer.Option(help="Folder of the answers.")] = Path("runs/decoders"),
    only: Annotated[str | None, typer.Option("--task", show_default="both", help="short or long.")] = None,
    part: Annotated[
        str, typer.Option(help="Part of the problems: 1/2 and 2/2 share the work between two processes.")
    ] = "1/1",
    count: Annotated[int, typer.Option(min=1, help="Held-out problems of each task.")] = 1000,
    on_curves: Annotated[
        int, typer.Option("--curves", min=1, help="Held-out problems for the curves, the first of each task.")
    ] = 300,
    write: Annotated[Path | None, typer.Option(help="Write the tables into this page, and measure nothing.")] = None,
) -> None:
    """Measure every decoder, or write the measured tables into a page."""
    names, mine = (only,) if only else tuple(TASKS), Part.named(part)
    for name in names:
        check_choice("The task", name, tuple(TASKS))
    if write is None:
        for name in names:
            solve(work, name, mine, count, on_curves)
        return
    sections = {name: section(work, name, count, on_curves) for name in names}
    for name, content in sections.items():
        put(write, f"decoders-{name}", content)


if __name__ == "__main__":
    script(compare)
