"""A folder of trajectories: shards of a fixed number of prompts, and journals of prompts that are not in a shard yet.

    trajectories.json              settings of the recording
    rows-00000000.safetensors      arrays of one shard: ids and ranks, one prompt after the other
    rows-00000000.jsonl            index of the shard, one line per prompt
    journal-0.jsonl                finished prompts of process 0 that are not in a shard yet

A finished prompt is written to the journal before the next one begins. The journal is emptied only after its shard is
written. So a killed run loses no prompt and records no prompt twice.
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
from d3mlx.files import holds_files, json_object, refuse_special, write_bytes, write_text

SETTINGS = "trajectories.json"
ARRAYS = ("prompts", "tokens", "ranks")
AGAIN = "record the trajectories again in another folder."
NOT_COMPARED = frozenset({"teacher", "data"})
"""Settings for information only. Fingerprints decide whether a run may continue."""

SHARD = 256
"""Prompts per shard."""


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
    """Write the index of a shard, then its arrays, which complete it. Raises DataError if the shard exists."""
    name = f"rows-{trajectories[0].row:08d}"
    if (folder / f"{name}.safetensors").exists():
        raise DataError(f"{folder / name}.safetensors already exists. Record into another folder.")
    lines = "".join(json.dumps(index_line(t)) + "\n" for t in trajectories)
    write_text(folder / f"{name}.jsonl", lines)
    arrays = {
        "prompts": np.concatenate([t.prompt for t in trajectories]),
        "tokens": np.concatenate([t.tokens for t in trajectories]),
        "ranks": np.concatenate([t.ranks for t in trajectories]),
    }
    write_bytes(folder / f"{name}.safetensors", save(arrays))


def shard_arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of a shard by name, integers of one dimension. Raises DataError."""
    refuse_special([path], DataError)
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
    """Return whether `value` is a whole number above 0."""
    return type(value) is int and value > 0


def is_ids(value: Any) -> bool:
    """Return whether `value` is a list of one or more ids or ranks: whole numbers from 0 below 2^31."""
    return isinstance(value, list) and bool(value) and all(type(n) is int and 0 <= n < 2**31 for n in value)


def checked_row(values: Any) -> dict[str, Any]:
    """Return a line of a journal or an index after a check of their common entries. Raises ValueError."""
    if (
        not isinstance(values, dict)
        or not (type(values.get("row")) is int and values["row"] >= 0)
        or not ("correct" in values and (values["correct"] is None or isinstance(values["correct"], bool)))
        or not is_count(values.get("attempts"))
    ):
        raise ValueError("row, correct or attempts are damaged")
    return values


def index_row(values: Any) -> dict[str, Any]:
    """Return a line of an index after a check. Raises ValueError."""
    row = checked_row(values)
    if not (is_count(row.get("prompt_tokens")) and is_count(row.get("new_tokens"))):
        raise ValueError("the numbers of tokens are damaged")
    return row


def journal_row(values: Any) -> Trajectory:
    """Return the trajectory in a line of a journal. Raises ValueError."""
    row = checked_row(values)
    if not all(is_ids(row.get(key)) for key in ("prompt", "tokens", "ranks")) or len(row["tokens"]) != len(
        row["ranks"]
    ):
        raise ValueError("prompt, tokens or ranks are damaged, or differ in length")
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
        raise DataError(f"{path} and its index {index.name} disagree; {AGAIN}")
    cut = np.cumsum(prompts)[:-1], np.cumsum(answers)[:-1]
    parts = np.split(arrays["prompts"], cut[0]), np.split(arrays["tokens"], cut[1]), np.split(arrays["ranks"], cut[1])
    return [
        Trajectory(line["row"], prompt, tokens, ranks, line["correct"], line["attempts"])
        for line, prompt, tokens, ranks in zip(lines, *parts, strict=True)
    ]


def journal(path: Path) -> AppendLog[Trajectory]:
    """Return the log of finished prompts that are not in a shard yet."""
    return AppendLog(path, journal_row, AGAIN, identity=lambda trajectory: f"row {trajectory.row}")


def shards(folder: Path) -> list[Path]:
    """Return the paths of all shards, sorted by their first row."""
    return sorted(folder.glob("rows-*.safetensors"))


def read_store(folder: Path) -> Iterator[Trajectory]:
    """Yield every recorded trajectory once, also from journals of unfinished runs. Raises DataError."""
    seen: set[int] = set()
    for path in [*shards(folder), *sorted(folder.glob("journal-*.jsonl"))]:
        for trajectory in read_shard(path) if path.suffix == ".safetensors" else journal(path).read().records:
            if trajectory.row not in seen:
                seen.add(trajectory.row)
                yield trajectory


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a folder. Raises DataError if they are missing or damaged."""
    path = folder / SETTINGS
    if not path.is_file():
        raise DataError(
            f"{folder} contains neither {SETTINGS} nor train.jsonl. Use a folder of d3mlx trajectories, or one with "
            "train.jsonl."
        )
    settings = json_object(path)
    if settings is None or not {"tokenizer", "mask_id"} <= settings.keys():
        raise DataError(f"{path} is damaged; {AGAIN}")
    return settings


def open_store(folder: Path, settings: Settings) -> set[int]:
    """Return the rows in a folder; empty if it is new. Raises ConfigError if it has other settings or other files."""
    if (folder / SETTINGS).is_file():
        settings.check(folder, read_settings(folder))
    elif holds_files(folder):
        raise ConfigError(f"{folder} contains other files. Record into another folder.")
    return {trajectory.row for trajectory in read_store(folder)}


def begin_store(folder: Path, settings: Settings) -> None:
    """Write the settings of a folder."""
    settings.write(folder / SETTINGS)


class Writer:
    """Appends finished prompts to the journal of a process, and writes a shard for every `size` of them.

    log: the open journal. waiting: its trajectories that are not in a shard yet.
    """

    def __init__(self, folder: Path, log: OpenLog[Trajectory], size: int):
        self.folder, self.log, self.size = folder, log, size
        stored = {trajectory.row for path in shards(folder) for trajectory in read_shard(path)}
        self.waiting = [trajectory for trajectory in log.records if trajectory.row not in stored]

    def add(self, trajectory: Trajectory) -> None:
        """Write a trajectory to the journal. It is safe after this call, even if the process is killed."""
        self.log.append(journal_line(trajectory))
        self.waiting.append(trajectory)
        if len(self.waiting) >= self.size:
            self.flush()

    def flush(self) -> None:
        """Write the waiting trajectories to a shard, then empty the journal."""
        if self.waiting:
            write_shard(self.folder, sorted(self.waiting, key=lambda trajectory: trajectory.row))
        self.waiting = []
        self.log.clear()


@contextmanager
def writing_to(folder: Path, process: int = 0, size: int = SHARD) -> Iterator[Writer]:
    """Yield the writer of a process, for shards of `size` prompts. Flush it after the block, unless an error occurs."""
    with journal(folder / f"journal-{process}.jsonl").opened() as log:
        writer = Writer(folder, log, size)
        yield writer
        writer.flush()
