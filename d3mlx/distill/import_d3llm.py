"""Import of trajectories in the layout that d3LLM published.

A published row has three fields. `trajectory` contains one sequence (prompt and generation) per step, stored after the
step. `prompt_ids` is its prompt. `question` is the text of the question. LLaDA's rows were decoded without the chat
template, but training uses it. So positions count from the end of the row's own prompt, and the prompt for training is
made from the question.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d3mlx.data.records import read_rows
from d3mlx.distill.prompts import check_length, ids_of, prompt_of
from d3mlx.distill.trajectories import MOST_STEPS, Trajectory
from d3mlx.errors import DataError
from d3mlx.models import DiffusionModel


def states_of(location: str, row: dict[str, Any]) -> tuple[list[int], NDArray[np.int32]]:
    """Return the row's own prompt, and its states after the prompt, int32 [steps, N]. Raises DataError."""
    trajectory, prompt = row.get("trajectory"), row.get("prompt_ids")
    if not isinstance(trajectory, list) or not trajectory:
        raise DataError(f"{location}: the record has no trajectory.")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], list):
        prompt = prompt[0]
    if not isinstance(prompt, list) or not prompt:
        raise DataError(f"{location}: the record has no prompt_ids.")
    try:
        states = np.array(trajectory, np.int32)
    except (ValueError, TypeError, OverflowError):
        raise DataError(
            f"{location}: the states of the trajectory must be lists of ids with the same length."
        ) from None
    if states.ndim == 3 and states.shape[1] == 1:
        states = states[:, 0]
    if states.ndim != 2 or states.shape[1] <= len(prompt) or states[0, : len(prompt)].tolist() != prompt:
        raise DataError(f"{location}: the states of the trajectory do not begin with prompt_ids.")
    return prompt, states[:, len(prompt) :]


def trajectory_of_states(
    location: str, number: int, prompt: list[int], states: NDArray[np.int32], mask_id: int
) -> Trajectory:
    """Return the trajectory of a row. The rank of a position is the number of states in which it is masked."""
    if (states[-1] == mask_id).any():
        raise DataError(
            f"{location}: the last state contains mask tokens (id {mask_id}), so the decode was not finished."
        )
    if len(states) > MOST_STEPS:
        raise DataError(f"{location}: the trajectory has {len(states):,} states. The limit is {MOST_STEPS:,}.")
    ranks = (states == mask_id).sum(axis=0).astype(np.int16)
    return Trajectory(number, np.array(prompt, np.int32), states[-1].copy(), ranks)


def published_trajectories(path: Path, model: DiffusionModel, tokenizer: Any, raw: bool) -> Iterator[Trajectory]:
    """Yield every row of a JSONL or parquet file in the published layout. Raises DataError."""
    width = model.args.logit_width
    for number, (location, row) in enumerate(read_rows(path)):
        own_prompt, states = states_of(location, row)
        prompt = ids_of(location, tokenizer, prompt_of(location, row, raw)) if row.get("question") else own_prompt
        if not ((states >= 0) & (states < width)).all() or max(prompt) >= width:
            raise DataError(f"{location}: an id is not in 0 to {width - 1}. The record has ids of another tokenizer.")
        check_length(location, model, prompt, states.shape[1])
        correct = row.get("is_correct")
        trajectory = trajectory_of_states(location, number, prompt, states, model.args.mask_token_id)
        yield replace(trajectory, correct=None if correct is None else bool(correct))
