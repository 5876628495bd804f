"""Tests of settings from preset, file and flags, of the memory estimate, and of several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.distill.config import build_config, read_config
from d3mlx.distill.memory import estimate, refuse_if_over_limit
from d3mlx.distill.run import distill
from d3mlx.errors import ConfigError, MemoryLimitError
from tests.builders import write_llada
from tests.distill.runs import COMMAND, SMALL, arrays, config_for, quiet


def test_settings_from_preset_file_and_flags(tmp_path: Path) -> None:
    for name, text in {
        "c.yaml": "preset: dream\nlearning-rate: 1e-4\nblock_sizes: [8, 16]\nrank: 32\n",
        "c.toml": 'preset = "dream"\nlearning-rate = 1e-4\nblock_sizes = [8, 16]\nrank = 32\n',
    }.items():
        (tmp_path / name).write_text(text)
        config = build_config(read_config(tmp_path / name), {"rank": 64})
        assert (config.learning_rate, config.block_sizes, config.rank, config.epochs) == (1e-4, (8, 16), 64, 3.0)
        assert (config.entropy_on_complement, config.response_length, config.lr_schedule) == (True, 256, "cosine")
    assert build_config({"preset": "llada"}, {"preset": "coder"}).fine_tune_type == "full"
    for invalid, reason in [
        ({"rank": 0}, "rank must be between 1 and 4,096"),
        ({"scale": float("nan")}, "scale must be between 0 and 1,000,000"),
        ({"learning_rate": float("inf")}, "learning-rate must be"),
        ({"preset": ["llada"]}, "preset must be one of"),
        ({"objective": "sft", "block_sizes": "16"}, "block-sizes has no effect with objective sft"),
        ({"objective": "sft", "random_masks": True}, "random-masks has no effect with objective sft"),
        ({"selection": "segment", "random_masks": True}, "selection has no effect with random-masks"),
        ({"fine_tune_type": "full", "rank": 4}, "rank has no effect with fine-tune-type full"),
        ({"max_mask_ratio": 1.5}, "max-mask-ratio must be between"),
        ({"objective": "magic"}, "objective must be one of"),
        ({"targets": "q_proj,head"}, "not head"),
        ({"targets": []}, "not nothing"),
        ({"block_sizes": "16,0"}, "block-sizes"),
        ({"block_sizes": "16,x"}, "Invalid value for block-sizes"),
        ({"rank": 2.5}, "Invalid value for rank"),
        ({"min_mask_ratio": 0.9}, "must not be above"),
        ({"dropout": 0.1, "grad_checkpoint": True}, "Cannot combine"),
        ({"preset": "gpt"}, "preset must be one of"),
    ]:
        with pytest.raises(ConfigError, match=reason):
            build_config({}, invalid)
    (tmp_path / "bad.yaml").write_text("rnak: 3\n")
    with pytest.raises(ConfigError, match="Unknown setting 'rnak'"):
        read_config(tmp_path / "bad.yaml")
    (tmp_path / "invalid.toml").write_text("= 3\n")
    with pytest.raises(ConfigError, match="Cannot read"):
        read_config(tmp_path / "invalid.toml")


@pytest.mark.parametrize("grad_checkpoint", [False, True])
def test_the_estimate_is_close_to_the_memory_of_training(
    tmp_path: Path, data: Path, grad_checkpoint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_llada(tmp_path / "model", n_layers=8, mlp_hidden_size=384)
    changes = {"batch_size": 4, "grad_accumulation_steps": 1, "max_length": 64, "grad_checkpoint": grad_checkpoint}
    config = config_for(folder, data, tmp_path / "a", iters=1, **changes)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    distill(config, quiet)
    measured = mx.get_peak_memory() - before
    expected = estimate(open_checkpoint(folder), config)
    assert 0.6 < expected.total / measured < 1.6, (expected, measured)
    monkeypatch.setattr("d3mlx.distill.memory.memory_limit", lambda: expected.total - 1)
    with pytest.raises(MemoryLimitError, match="--force"):
        refuse_if_over_limit(expected, force=False)
    refuse_if_over_limit(expected, force=True)


def launch(*arguments: str) -> None:
    """Run d3mlx in two processes on this machine."""
    launcher = [str(COMMAND("mlx.launch")), "-n", "2", "--backend", "ring", "--", str(COMMAND("d3mlx"))]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=240, env=environment)
    assert "Error" not in done.stderr + done.stdout, done.stderr + done.stdout
    assert done.returncode == 0, done.stderr


def test_two_processes_train_like_a_single_one_and_share_the_prompts(
    tmp_path: Path, llada: Path, recorded: Path
) -> None:
    config = config_for(llada, recorded, tmp_path / "single", iters=3)
    distill(config, quiet)
    names = ("rank", "batch_size", "grad_accumulation_steps", "max_length", "learning_rate", "save_every", "log_every")
    options = [part for name in names for part in (f"--{name.replace('_', '-')}", str(SMALL[name]))]
    paths = ["--model", str(llada), "--data", str(recorded), "--adapter-path", str(tmp_path / "two")]
    launch("distill", *paths, "--iters", "3", *options)
    ours, theirs = (arrays(tmp_path / name / "adapters.safetensors") for name in ("two", "single"))
    assert all(np.abs(ours[name] - theirs[name]).max() < 2e-5 for name in theirs)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("two", "single")]
    for mine, single in zip(*logs, strict=True):
        for name in ("loss", "ce", "ce_rev", "entropy", "entropy_rev", "norm"):
            assert json.loads(mine)[name] == pytest.approx(json.loads(single)[name], rel=1e-4, abs=1e-5)

    prompts = recorded.with_name("prompts.jsonl")
    out = tmp_path / "shared"
    launch(
        "trajectories", str(out), "--model", str(llada), "--data", str(prompts), "--max-tokens", "40", "--shard", "2"
    )
    from d3mlx.distill.trajectory_store import read_store

    alone, shared = ({t.row: t for t in read_store(folder)} for folder in (recorded, out))
    assert alone.keys() == shared.keys()
    assert all(np.array_equal(alone[row].ranks, shared[row].ranks) for row in alone)
    assert all(np.array_equal(alone[row].tokens, shared[row].tokens) for row in alone)
    assert len(list(out.glob("rows-*.safetensors"))) == 4
