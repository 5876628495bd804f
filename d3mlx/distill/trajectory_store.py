"""A folder of trajectories: shards of a fixed number of prompts, and a journal of those not in a shard yet.

    trajectories.json              what they were recorded with
    rows-00000000.safetensors      arrays of one shard: ids and ranks, laid end to end, and their lengths
    rows-00000000.jsonl            its index, one line per prompt
    journal-0.jsonl                finished prompts of process 0 that fill no shard yet

A finished prompt is in the journal before the next one begins, and a shard exists before the journal forgets it, so a
run that is killed loses and doubles nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from d3mlx.distill.trajectories import Trajectory
from d3mlx.errors import ConfigError, DataError
from d3mlx.files import holds_files, json_object, write_bytes, write_text, writing

SETTINGS = "trajectories.json"
ARRAYS = ("prompts", "tokens", "ranks")
AGAIN = "record the trajectories again, into another folder."
NOT_COMPARED = {"teacher", "data"}
"""Names that are kept for the reader; whether a run may go on depends on the fingerprints beside them."""

SHARD = 256
"""Prompts in a shard."""


def index_line(trajectory: Trajectory) -> dict[str, Any]:
    return {
        "row": trajectory.row,
        "prompt_tokens": len(trajectory.prompt),
        "new_tokens": len(trajectory.tokens),
        "steps": trajectory.states,
        "correct": trajectory.correct,
        "attempts": trajectory.attempts,
    }


def write_shard(folder: Path, trajectories: list[Trajectory]) -> None:
    """One shard; its index first, because the arrays are what makes it count. Raises DataError if it is there."""
    name = f"rows-{trajectories[0].row:08d}"
    if (folder / f"{name}.safetensors").exists():
        raise DataError(f"{folder / name}.safetensors is there already and stays; record into another folder.")
    lines = "".join(json.dumps(index_line(t)) + "\n" for t in trajectories)
    write_text(folder / f"{name}.jsonl", lines)
    arrays = {
        "prompts": np.concatenate([t.prompt for t in trajectories]),
        "tokens": np.concatenate([t.tokens for t in trajectories]),
        "ranks": np.concatenate([t.ranks for t in trajectories]),
    }
    write_bytes(folder / f"{name}.safetensors", save(arrays))


def shard_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a shard, each of one dimension and of integers. Raises DataError."""
    try:
        arrays = load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{path} is truncated or damaged; {AGAIN}") from error
    for name in ARRAYS:
        found = arrays.get(name)
        if found is None or found.ndim != 1 or found.dtype.kind != "i" or not found.size or found.min() < 0:
            raise DataError(f"{path} holds no usable {name}; {AGAIN}")
    return arrays


def is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def is_ids(value: Any) -> bool:
    """Whether it is a list of ids or ranks: whole numbers that an array of 32 bits takes."""
    return isinstance(value, list) and bool(value) and all(type(n) is int and 0 <= n < 2**31 for n in value)


def checked_line(place: str, line: bytes) -> dict[str, Any]:
    """What a journal's and an index's row have in common. Raises DataError naming its place."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not valid JSON; {AGAIN}") from error
    if (
        not isinstance(found, dict)
        or not (type(found.get("row")) is int and found["row"] >= 0)
        or not (found.get("correct", "") is None or isinstance(found["correct"], bool))
        or not is_count(found.get("attempts"))
    ):
        raise DataError(f"{place}: row, correct or attempts are damaged; {AGAIN}")
    return found


def read_shard(path: Path) -> list[Trajectory]:
    """The trajectories of a shard. Raises DataError if it or its index is damaged, or if they disagree."""
    arrays = shard_arrays(path)
    index = path.with_suffix(".jsonl")
    if not index.is_file():
        raise DataError(f"{path} has no index {index.name}; {AGAIN}")
    lines = [
        checked_line(f"{index}, row {number}", line) for number, line in enumerate(index.read_bytes().splitlines(), 1)
    ]
    for number, line in enumerate(lines, 1):
        if not (is_count(line.get("prompt_tokens")) and is_count(line.get("new_tokens"))):
            raise DataError(f"{index}, row {number}: the numbers of tokens are damaged; {AGAIN}")
    prompts, answers = ([line[key] for line in lines] for key in ("prompt_tokens", "new_tokens"))
    rows = [line["row"] for line in lines]
    if (
        (sum(prompts), sum(answers), sum(answers)) != tuple(len(arrays[name]) for name in ARRAYS)
        or rows != sorted(set(rows))
        or path.stem != f"rows-{rows[0]:08d}"
    ):
        raise DataError(f"{path} and its index {index.name} do not belong together; {AGAIN}")
    cut = np.cumsum(prompts)[:-1], np.cumsum(answers)[:-1]
    parts = np.split(arrays["prompts"], cut[0]), np.split(arrays["tokens"], cut[1]), np.split(arrays["ranks"], cut[1])
    return [
        Trajectory(line["row"], prompt, tokens, ranks, line["correct"], line["attempts"])
        for line, prompt, tokens, ranks in zip(lines, *parts, strict=True)
    ]


def read_journal(path: Path) -> list[Trajectory]:
    """The finished prompts of a journal; a last line that was cut off by a kill is none."""
    out = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if line.endswith(b"\n"):
            place = f"{path}, row {number}"
            found = checked_line(place, line)
            lists = [found.get(key) for key in ("prompt", "tokens", "ranks")]
            if not all(is_ids(ids) for ids in lists) or len(found["tokens"]) != len(found["ranks"]):
                raise DataError(f"{place}: prompt, tokens and ranks are no lists of ids that fit; {AGAIN}")
            prompt, tokens = (np.array(found[key], np.int32) for key in ("prompt", "tokens"))
            ranks = np.array(found["ranks"], np.int16)
            out.append(Trajectory(found["row"], prompt, tokens, ranks, found["correct"], found["attempts"]))
    return out


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows-*.safetensors"))


def read_store(folder: Path) -> Iterator[Trajectory]:
    """Every recorded trajectory once, by ascending row within a file; journals of unfinished runs included."""
    seen: set[int] = set()
    for path in [*shards(folder), *sorted(folder.glob("journal-*.jsonl"))]:
        for trajectory in read_shard(path) if path.suffix == ".safetensors" else read_journal(path):
            if trajectory.row not in seen:
                seen.add(trajectory.row)
                yield trajectory


def read_settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    if not path.is_file():
        raise DataError(f"{folder} holds no {SETTINGS}, so it is no folder of trajectories.")
    found = json_object(path)
    if found is None or not {"tokenizer", "mask_id"} <= found.keys():
        raise DataError(f"{path} is damaged; {AGAIN}")
    return found


def open_store(folder: Path, settings: dict[str, Any]) -> set[int]:
    """Begin or go on with a folder; the rows that are done. Raises ConfigError if it was begun with other settings."""
    if (folder / SETTINGS).is_file():
        before = read_settings(folder)
        keys = (settings.keys() | before.keys()) - NOT_COMPARED
        if different := sorted(key for key in keys if settings.get(key) != before.get(key)):
            name, value = different[0].replace("_", " "), before.get(different[0])
            raise ConfigError(
                f"{folder} was begun with other settings ({name} {value!r}); "
                "go on with the same settings, or record into another folder."
            )
    elif holds_files(folder):
        raise ConfigError(f"{folder} is not empty and holds no trajectories; record into another folder.")
    return {trajectory.row for trajectory in read_store(folder)}


def begin_store(folder: Path, settings: dict[str, Any]) -> None:
    write_text(folder / SETTINGS, json.dumps(settings, indent=2, sort_keys=True) + "\n")


class Writer:
    """Appends finished prompts to a journal and turns full journals into shards."""

    def __init__(self, folder: Path, process: int = 0, size: int = SHARD):
        self.folder, self.size = folder, size
        self.journal = folder / f"journal-{process}.jsonl"
        stored = {t.row for path in shards(folder) for t in read_shard(path)}
        waiting = read_journal(self.journal) if self.journal.is_file() else []
        self.waiting = [t for t in waiting if t.row not in stored]
        self.rewrite()

    def rewrite(self) -> None:
        """Leave exactly the waiting prompts in the journal."""
        if self.waiting:
            write_text(self.journal, "".join(self.line(t) for t in self.waiting))
        else:
            self.journal.unlink(missing_ok=True)

    @staticmethod
    def line(t: Trajectory) -> str:
        arrays = {"prompt": t.prompt.tolist(), "tokens": t.tokens.tolist(), "ranks": t.ranks.tolist()}
        return json.dumps({"row": t.row, **arrays, "correct": t.correct, "attempts": t.attempts}) + "\n"

    def add(self, trajectory: Trajectory) -> None:
        with writing(self.journal), self.journal.open("a", encoding="utf-8") as file:
            file.write(self.line(trajectory))
        self.waiting.append(trajectory)
        if len(self.waiting) >= self.size:
            self.flush()

    def flush(self) -> None:
        """Make a shard of what is waiting."""
        if self.waiting:
            write_shard(self.folder, sorted(self.waiting, key=lambda t: t.row))
            self.waiting = []
            self.rewrite()
