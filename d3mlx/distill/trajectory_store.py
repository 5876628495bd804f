"""A folder of trajectories: shards of a fixed number of prompts, and journals of the prompts in no shard yet.

    trajectories.json              settings that they were recorded with
    rows-00000000.safetensors      arrays of one shard: ids and ranks, one prompt after the other
    rows-00000000.jsonl            its index, one line per prompt
    journal-0.jsonl                finished prompts of process 0 that do not fill a shard yet

A finished prompt is in the journal before the next one begins, and its shard exists before the journal is emptied. So a
killed run loses nothing and records nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from d3mlx.append_log import AppendLog, OpenLog, Settings
from d3mlx.distill.trajectories import MOST_STEPS, Trajectory
from d3mlx.errors import ConfigError, DataError
from d3mlx.files import holds_files, json_object, write_bytes, write_text

SETTINGS = "trajectories.json"
ARRAYS = ("prompts", "tokens", "ranks")
AGAIN = "record the trajectories again, into another folder."
NOT_COMPARED = frozenset({"teacher", "data"})
"""Settings that only inform the reader; their fingerprints decide whether a run may go on."""

SHARD = 256
"""Prompts in a shard."""


def index_line(trajectory: Trajectory) -> dict[str, Any]:
    """Return the line of a trajectory in the index of its shard."""
    return {
        "row": trajectory.row,
        "prompt_tokens": len(trajectory.prompt),
        "new_tokens": len(trajectory.tokens),
        "steps": trajectory.states,
        "correct": trajectory.correct,
        "attempts": trajectory.attempts,
    }


def write_shard(folder: Path, trajectories: list[Trajectory]) -> None:
    """Write one shard, its index first: only arrays make a shard. Raises DataError if the shard exists."""
    name = f"rows-{trajectories[0].row:08d}"
    if (folder / f"{name}.safetensors").exists():
        raise DataError(f"{folder / name}.safetensors exists already; record into another folder.")
    lines = "".join(json.dumps(index_line(t)) + "\n" for t in trajectories)
    write_text(folder / f"{name}.jsonl", lines)
    arrays = {
        "prompts": np.concatenate([t.prompt for t in trajectories]),
        "tokens": np.concatenate([t.tokens for t in trajectories]),
        "ranks": np.concatenate([t.ranks for t in trajectories]),
    }
    write_bytes(folder / f"{name}.safetensors", save(arrays))


def shard_arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of a shard, each of one dimension and of integers. Raises DataError."""
    try:
        arrays = load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{path} is truncated or damaged; {AGAIN}") from error
    for name in ARRAYS:
        array = arrays.get(name)
        if array is None or array.ndim != 1 or array.dtype.kind != "i" or not array.size or array.min() < 0:
            raise DataError(f"{path} has no usable {name}; {AGAIN}")
    if arrays["ranks"].max() > MOST_STEPS:
        raise DataError(f"{path} has no usable ranks; {AGAIN}")
    return arrays


def is_count(value: Any) -> bool:
    """Return whether it is a whole number above 0."""
    return type(value) is int and value > 0


def is_ids(value: Any) -> bool:
    """Return whether it is a list of ids or ranks: whole numbers that an array of 32 bits takes."""
    return isinstance(value, list) and bool(value) and all(type(n) is int and 0 <= n < 2**31 for n in value)


def checked_row(values: Any) -> dict[str, Any]:
    """Return the entries that a line of a journal and a line of an index share. Raises ValueError with the reason."""
    if (
        not isinstance(values, dict)
        or not (type(values.get("row")) is int and values["row"] >= 0)
        or not ("correct" in values and (values["correct"] is None or isinstance(values["correct"], bool)))
        or not is_count(values.get("attempts"))
    ):
        raise ValueError("row, correct or attempts are damaged")
    return values


def index_row(values: Any) -> dict[str, Any]:
    """Return a line of an index. Raises ValueError with the reason."""
    row = checked_row(values)
    if not (is_count(row.get("prompt_tokens")) and is_count(row.get("new_tokens"))):
        raise ValueError("the numbers of tokens are damaged")
    return row


def journal_row(values: Any) -> Trajectory:
    """Return the trajectory in a line of a journal. Raises ValueError with the reason."""
    row = checked_row(values)
    if not all(is_ids(row.get(key)) for key in ("prompt", "tokens", "ranks")) or len(row["tokens"]) != len(
        row["ranks"]
    ):
        raise ValueError("prompt, tokens and ranks are not lists of ids that fit")
    if max(row["ranks"]) > MOST_STEPS:
        raise ValueError(f"a rank is above {MOST_STEPS}")
    prompt, tokens = (np.array(row[key], np.int32) for key in ("prompt", "tokens"))
    return Trajectory(row["row"], prompt, tokens, np.array(row["ranks"], np.int16), row["correct"], row["attempts"])


def journal_line(trajectory: Trajectory) -> dict[str, Any]:
    """Return the line of a trajectory in a journal."""
    arrays = {name: getattr(trajectory, name).tolist() for name in ("prompt", "tokens", "ranks")}
    return {"row": trajectory.row, **arrays, "correct": trajectory.correct, "attempts": trajectory.attempts}


def read_shard(path: Path) -> list[Trajectory]:
    """Return the trajectories of a shard. Raises DataError if it or its index is damaged, or if they disagree."""
    arrays = shard_arrays(path)
    index = path.with_suffix(".jsonl")
    if not index.is_file():
        raise DataError(f"{path} has no index {index.name}; {AGAIN}")
    lines = AppendLog(index, index_row, AGAIN).read().records
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


def journal(path: Path) -> AppendLog[Trajectory]:
    """Return the log of finished prompts that no shard has yet."""
    return AppendLog(path, journal_row, AGAIN, identity=lambda trajectory: f"row {trajectory.row}")


def shards(folder: Path) -> list[Path]:
    """Return the arrays of all shards, by their first row."""
    return sorted(folder.glob("rows-*.safetensors"))


def read_store(folder: Path) -> Iterator[Trajectory]:
    """Yield every recorded trajectory once, those in journals of unfinished runs too."""
    seen: set[int] = set()
    for path in [*shards(folder), *sorted(folder.glob("journal-*.jsonl"))]:
        for trajectory in read_shard(path) if path.suffix == ".safetensors" else journal(path).read().records:
            if trajectory.row not in seen:
                seen.add(trajectory.row)
                yield trajectory


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings that a folder was recorded with. Raises DataError if there are none."""
    path = folder / SETTINGS
    if not path.is_file():
        raise DataError(f"{folder} is not a folder of trajectories: it has no {SETTINGS}.")
    settings = json_object(path)
    if settings is None or not {"tokenizer", "mask_id"} <= settings.keys():
        raise DataError(f"{path} is damaged; {AGAIN}")
    return settings


def open_store(folder: Path, settings: Settings) -> set[int]:
    """Return the rows that are in a new or an earlier folder. Raises ConfigError if it began with other settings."""
    if (folder / SETTINGS).is_file():
        settings.check(folder, read_settings(folder))
    elif holds_files(folder):
        raise ConfigError(f"{folder} is not empty and holds no trajectories; record into another folder.")
    return {trajectory.row for trajectory in read_store(folder)}


def begin_store(folder: Path, settings: Settings) -> None:
    """Write the settings of a folder."""
    settings.write(folder / SETTINGS)


class Writer:
    """Appends finished prompts to the journal of a process, and makes a shard of them when there are enough.

    log: the open journal. waiting: the trajectories in it that no shard has.
    """

    def __init__(self, folder: Path, log: OpenLog[Trajectory], size: int):
        self.folder, self.log, self.size = folder, log, size
        stored = {trajectory.row for path in shards(folder) for trajectory in read_shard(path)}
        self.waiting = [trajectory for trajectory in log.records if trajectory.row not in stored]

    def add(self, trajectory: Trajectory) -> None:
        """Write a trajectory to the journal; a kill after this call does not lose it."""
        self.log.append(journal_line(trajectory))
        self.waiting.append(trajectory)
        if len(self.waiting) >= self.size:
            self.flush()

    def flush(self) -> None:
        """Make a shard of the waiting trajectories, then empty the journal."""
        if self.waiting:
            write_shard(self.folder, sorted(self.waiting, key=lambda trajectory: trajectory.row))
        self.waiting = []
        self.log.clear()


@contextmanager
def writing_to(folder: Path, process: int = 0, size: int = SHARD) -> Iterator[Writer]:
    """Open the journal of a process in a folder, for shards of `size` prompts. Flush it if nothing fails meanwhile."""
    with journal(folder / f"journal-{process}.jsonl").opened() as log:
        writer = Writer(folder, log, size)
        yield writer
        writer.flush()
