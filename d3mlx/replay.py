"""Replays: a recorded run as one HTML page that plays it. The page needs no other file and no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from d3mlx.cells import Cell, Cells, Pieces
from d3mlx.data.records import check_file
from d3mlx.errors import DataError
from d3mlx.generation import Generation
from d3mlx.request import Step
from d3mlx.terminal import printable

Record = Mapping[str, Any]

MARK = "{{run}}"
"""The text in the template that the run replaces."""


def canvas_record(generation: Generation) -> dict[str, Any]:
    """Return the canvas for a trace, from the first position that is shown.

    start: this position. tokens: ids [L]. given: flags [L]. texts: texts [L]. A character made of several tokens has
    its text at the last of their positions. None is at the others, at masks, and at bytes that form no character.
    """
    canvas, start, pieces = generation.canvas, generation.layout.start, Pieces(generation.tokenizer)
    texts: list[str | None] = [None] * len(canvas)
    runs = groupby(range(start, len(canvas)), lambda position: (canvas.masked[position], canvas.given[position]))
    for (masked, _), positions in runs:
        if not masked:
            # The newest cell of a character is then the one at its last position.
            cells = [Cell(int(canvas.tokens[position]), 0.0, step=position) for position in positions]
            for text, newest in pieces.split(cells):
                texts[newest.step] = text
    tokens, given = canvas.tokens[start:].tolist(), canvas.given[start:].tolist()
    return {"start": start, "tokens": tokens, "given": given, "texts": texts[start:]}


def progress_record(cells: Cells, step: Step) -> dict[str, Any]:
    """Return the progress of a run in a step, for a trace. It updates the cells.

    blocks: the active blocks before the forward. ends: end of the shown canvas before and after the step. stats: totals
    after the step.
    """
    before = cells.visible
    cells.take(step)
    return {
        "blocks": [asdict(block) for block in step.blocks],
        "ends": [before, cells.visible],
        "stats": asdict(step.stats),
    }


def read_trace(path: Path) -> dict[str, Any]:
    """Return the record in a trace. Raises DataError."""
    other = f"{path} is not a trace. Write one with d3mlx generate --trace FILE.json."
    check_file(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Give a trace of d3mlx generate.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(other) from error
    if not isinstance(record, dict) or not {"config", "text", "steps", "stats", "prompt"} <= set(record):
        raise DataError(other)
    if "canvas" not in record:
        raise DataError(f"{path} was written by an earlier version of d3mlx. Write the trace again.")
    return record


def page(record: Record) -> str:
    """Return the page that plays a run. record: the content of a trace. Raises DataError if it is damaged."""
    try:
        run = json.dumps(played(record), allow_nan=False)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError("The trace is damaged. Write it again with d3mlx generate --trace FILE.json.") from error
    template = files("d3mlx").joinpath("replay.html").read_text(encoding="utf-8")
    # A text of the model can contain a tag that would end the script. All other special characters are ASCII escapes.
    return template.replace(MARK, run.replace("<", "\\u003c"), 1)


def played(record: Record) -> dict[str, Any]:
    """Return the part of a run that the page shows: the last round, because only its canvas is known."""
    config, rounds = record["config"], [int(step["round"]) for step in record["steps"]]
    steps = [step for step in record["steps"] if step["round"] == max(rounds)]
    return {
        "title": printable(f"{Path(config['model']).name} · {config['decoder']}"),
        "prompt": shown_prompt(record),
        "text": printable(record["text"]),
        "rounds": max(rounds) + 1,
        "begin": int(steps[0]["ends"][0]),
        "groups": groups(record["canvas"], known_positions(steps)),
        "steps": [played_step(step) for step in steps],
    }


def shown_prompt(record: Record) -> list[dict[str, str]]:
    """Return the messages before the canvas. The canvas itself contains a prompt that begins at its first position."""
    prompt = record["config"]["prompt"] if record["canvas"]["start"] else []
    messages = [{"role": "prompt", "content": prompt}] if isinstance(prompt, str) else prompt
    return [{"role": printable(each["role"]), "text": printable(each["content"])} for each in messages]


def known_positions(steps: list[Record]) -> set[int]:
    """Return the positions that have a token after the steps."""
    return {int(position) for step in steps for name in ("positions", "filled") for position in step[name]}


def groups(canvas: Record, known: set[int]) -> list[dict[str, Any]]:
    """Return the consecutive positions that form a character or a longer text, in order.

    at: the first position. tokens: ids. text: None at masks, and at bytes that form no character. given: the model did
    not commit it.
    """
    made: list[dict[str, Any]] = []
    start = int(canvas["start"])
    cells = enumerate(zip(canvas["tokens"], canvas["given"], canvas["texts"], strict=True), start)
    runs = groupby(cells, lambda cell: (bool(cell[1][1]), cell[0] in known))
    for (given, committed), run in runs:
        waiting: list[tuple[int, int]] = []
        for position, (token, _, text) in run:
            waiting.append((position, int(token)))
            if text is not None and (given or committed):
                made.append(group(waiting, printable(text), given))
                waiting = []
        made += [group([cell], None, given) for cell in waiting]
    return made


def group(cells: list[tuple[int, int]], text: str | None, given: bool) -> dict[str, Any]:
    return {"at": cells[0][0], "tokens": [token for _, token in cells], "text": text, "given": given}


def played_step(step: Record) -> dict[str, Any]:
    stats, committed = step["stats"], zip(step["positions"], step["entropies"], strict=True)
    return {
        "kind": str(step["kind"]),
        "committed": [[int(position), float(entropy)] for position, entropy in committed],
        "filled": [int(position) for position in step["filled"]],
        "rows": int(step["rows"]),
        "end": int(step["ends"][1]),
        "active": int(step["blocks"][-1]["end"]),
        "blocks": [[int(block["start"]), int(block["end"]), bool(block["full"])] for block in step["blocks"]],
        "forwards": int(stats["forwards"]),
        "allRows": int(stats["rows"]),
        "tokens": int(stats["tokens"]),
    }
