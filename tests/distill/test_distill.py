"""Training runs: resumption, data parallelism, adapters that every loader reads, bad data, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_adapters, quantize_model, save_model

from d3mlx import load
from d3mlx.checkpoint import open_checkpoint
from d3mlx.distill.adapters import checkpointed, make_trainable
from d3mlx.distill.config import DistillConfig, build_config, read_config
from d3mlx.distill.examples import Example, Order, load_examples, pad
from d3mlx.distill.fuse import fuse
from d3mlx.distill.memory import estimate, refuse_if_over_limit
from d3mlx.distill.noise import hide
from d3mlx.distill.objective import cross_entropy
from d3mlx.distill.objectives import Distillation, PlainTraining
from d3mlx.distill.recording import record_all, settings_of
from d3mlx.distill.run import distill
from d3mlx.distill.trainer import Report
from d3mlx.distill.trajectories import RecordConfig
from d3mlx.errors import CheckpointError, ConfigError, DataError, MemoryLimitError
from d3mlx.files import locked
from d3mlx.loader import lazy_model
from tests.builders import LLADA_CONFIG, write_dream, write_json, write_llada

COMMAND = Path(sys.executable).with_name
WORDS = ("one", "two", "three", "four", "five", "six")
SMALL = {
    "rank": 4,
    "batch_size": 2,
    "grad_accumulation_steps": 2,
    "max_length": 96,
    "learning_rate": 1e-2,
    "save_every": 2,
    "log_every": 1,
}


class Quiet:
    """A watcher that keeps the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, first: int, steps: int) -> None:
        pass

    def step(self, report: Report) -> None:
        self.losses.append(report.loss)


def quiet(*_: Any) -> Quiet:
    return Quiet()


@pytest.fixture(scope="module")
def llada(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llada(tmp_path_factory.mktemp("llada"))


@pytest.fixture(scope="module")
def dream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dream(tmp_path_factory.mktemp("dream"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    rows = [{"prompt": f"say {word}", "completion": word * 3} for word in WORDS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, llada: Path) -> Path:
    """Trajectories of the tiny model."""
    from d3mlx.distill.rows import questions

    folder = tmp_path_factory.mktemp("recorded") / "trajectories"
    teacher = load(llada)
    prompts = folder.with_name("prompts.jsonl")
    prompts.write_text("".join(json.dumps({"prompt": word}) + "\n" for word in WORDS))
    asked = questions(str(prompts), *teacher, 40, False, None)
    record_all(teacher, asked, RecordConfig(max_tokens=40), folder, settings_of(*teacher), 4, lambda *_: None)
    return folder


def config_for(model: Path, data: Path, out: Path, **changes: Any) -> DistillConfig:
    """Rows without trajectories are trained on with masks at random, unless `changes` say otherwise."""
    loose = {"random_masks": True} if data.is_file() and "objective" not in changes else {}
    small = SMALL if changes.get("fine_tune_type") != "full" else {k: v for k, v in SMALL.items() if k != "rank"}
    places = {"model": str(model), "data": str(data), "adapter_path": str(out)}
    return build_config({}, {**places, **small, **loose, **changes})


def arrays(path: Path) -> dict[str, Any]:
    loaded: Any = mx.load(str(path))
    return {name: np.array(value) for name, value in loaded.items()}


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.3, "objective": "sft"}, {"grad_checkpoint": True}], ids=str)
def test_a_killed_run_ends_like_an_uninterrupted_one(
    tmp_path: Path, llada: Path, recorded: Path, changes: dict[str, Any]
) -> None:
    whole, pieces = (config_for(llada, recorded, tmp_path / name, iters=5, **changes) for name in ("whole", "pieces"))
    distill(whole, quiet)
    distill(pieces, quiet, stop_after=3)
    with pytest.raises(ConfigError, match="--resume"):
        distill(pieces, quiet)
    with pytest.raises(ConfigError, match="rank 4, not 8"):
        distill(replace(pieces, rank=8), quiet, resume=True)
    distill(pieces, quiet, resume=True)
    ours, theirs = (arrays(tmp_path / name / "adapters.safetensors") for name in ("pieces", "whole"))
    limit = 0.0 if mx.default_device() == mx.Device(mx.cpu) else 1e-5
    assert all(np.abs(ours[name] - theirs[name]).max() <= limit for name in theirs)
    assert max(np.abs(theirs[name]).max() for name in theirs if name.endswith("lora_b")) > 0.01
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {f"{step:07d}_adapters.safetensors" for step in (2, 4, 5)} <= names
    assert not any("partial" in name for name in names)
    records = [json.loads(line) for line in (tmp_path / "pieces" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    assert {"loss", "mask_ratio", "tokens_per_second", "peak_memory"} <= records[0].keys()
    assert json.loads((tmp_path / "whole" / "distill.json").read_text())["seed"] == 42


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_adapters_load_everywhere_and_fuse(tmp_path: Path, llada: Path, dream: Path, data: Path, family: str) -> None:
    folder = {"llada": llada, "dream": dream}[family]
    config = config_for(folder, data, tmp_path / "a", iters=2, num_layers=1, targets="q_proj,up_proj", preset=family)
    distill(config, quiet)
    ours, _ = load(folder, adapter_path=tmp_path / "a")
    theirs = load_adapters(load(folder)[0], str(tmp_path / "a"))
    fuse(str(folder), tmp_path / "a", tmp_path / "fused", dequantize=False)
    fused, tokenizer = load(tmp_path / "fused")
    ids = mx.array(tokenizer.encode("say seven"))[None]
    logits, plain = ours.logits(ours.hidden(ids)), load(folder)[0]
    assert mx.array_equal(logits, theirs.logits(theirs.hidden(ids)))
    assert mx.allclose(logits, fused.logits(fused.hidden(ids)), atol=1e-3)
    assert not mx.allclose(logits, plain.logits(plain.hidden(ids)), atol=1e-2)
    adapted = {name.rsplit(".", 1)[0] for name in arrays(tmp_path / "a" / "adapters.safetensors")}
    assert adapted == {"model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"}
    with pytest.raises(ConfigError, match="exists already"):
        fuse(str(folder), tmp_path / "a", tmp_path / "fused", dequantize=False)


def test_full_fine_tuning(tmp_path: Path, llada: Path, data: Path) -> None:
    distill(config_for(llada, data, tmp_path / "a", iters=2, fine_tune_type="full", learning_rate=1e-3), quiet)
    tuned, _ = load(llada, adapter_path=tmp_path / "a")
    fuse(str(llada), tmp_path / "a", tmp_path / "fused", dequantize=False)
    fused, _ = load(tmp_path / "fused")
    plain, _ = load(llada)
    before, after = dict(tree_flatten(plain.parameters())), dict(tree_flatten(tuned.parameters()))  # type: ignore[attr-defined]
    assert all(not mx.array_equal(before[name], after[name]) for name in before)
    assert all(mx.array_equal(value, after[name]) for name, value in tree_flatten(fused.parameters()))  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, llada: Path) -> Path:
    target = tmp_path_factory.mktemp("quantized")
    model, config = quantize_model(load(llada)[0], dict(LLADA_CONFIG), 32, 4)  # type: ignore[arg-type]
    save_model(target, model)
    write_json(target / "config.json", config)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((llada / name).read_bytes())
    return target


def test_lora_on_quantized_weights(tmp_path: Path, quantized: Path, data: Path) -> None:
    """Gradients reach the adapters through 4-bit layers; fusing reports what rounding costs, or leaves floats."""
    config = config_for(quantized, data, tmp_path / "a", iters=1)
    model, tokenizer = lazy_model(open_checkpoint(quantized)), load(quantized)[1]
    make_trainable(model, config, quantized=True)
    examples = load_examples(config, model, tokenizer)
    objective = Distillation(examples, config, model, 257)

    def loss(weights: Any) -> Any:
        model.update(weights)
        return objective.loss(model, objective.passes(0)[0], cross_entropy)[0]

    gradients = dict(tree_flatten(mx.grad(loss)(model.trainable_parameters())))
    assert {name.rsplit(".", 1)[1] for name in gradients} == {"lora_a", "lora_b"}
    assert all(mx.abs(g).max().item() > 0 for name, g in gradients.items() if name.endswith("lora_b"))
    with pytest.raises(ConfigError, match="cannot be trained"):
        make_trainable(model, replace(config, fine_tune_type="full"), quantized=True)

    distill(config, quiet)
    rounded = fuse(str(quantized), tmp_path / "a", tmp_path / "rounded", dequantize=False)
    plain = fuse(str(quantized), tmp_path / "a", tmp_path / "plain", dequantize=True)
    assert rounded.layers == 14
    assert (rounded.error > 0, plain.error, plain.change == rounded.change) == (True, 0, True)
    tuned, _ = load(quantized, adapter_path=tmp_path / "a")
    exact, _ = load(tmp_path / "plain")
    ids = mx.arange(30)[None]
    assert mx.allclose(tuned.hidden(ids), exact.hidden(ids), atol=1e-2)
    assert open_checkpoint(tmp_path / "plain").quantization is None
    assert open_checkpoint(tmp_path / "rounded").quantization is not None


def test_gradient_checkpointing_changes_no_gradient_and_leaves_nothing_patched(llada: Path, data: Path) -> None:
    config = config_for(llada, data, Path("unused"))
    model, tokenizer = load(llada)
    network: Any = model
    make_trainable(network, config, quantized=False)
    objective = PlainTraining(load_examples(config, model, tokenizer), config, model, 257)
    one, start = objective.passes(0)[0], network.trainable_parameters()
    kind = type(model.layers[0])
    plain = kind.__call__

    def loss(weights: Any) -> Any:
        network.update(weights)
        return objective.loss(model, one, cross_entropy)[0]

    expected = dict(tree_flatten(mx.grad(loss)(start)))
    with pytest.raises(RuntimeError), checkpointed(network, True):
        assert kind.__call__ is not plain
        found = dict(tree_flatten(mx.grad(loss)(start)))
        mx.eval(found)
        raise RuntimeError
    assert kind.__call__ is plain
    assert all(mx.allclose(found[name], g, atol=1e-6) for name, g in expected.items())


def test_plain_training_is_the_published_bound(llada: Path, data: Path) -> None:
    """Cross-entropies over the mask probability, over the answer's length, averaged over sequences."""
    config = config_for(llada, data, Path("unused"), grad_accumulation_steps=1, objective="sft")
    model, tokenizer = load(llada)
    objective = PlainTraining(load_examples(config, model, tokenizer), config, model, 257)
    (one,) = objective.passes(3)
    expected = 0.0
    for sequence, time, noisy in zip(objective.sequences(3, 0), objective.times(3, 0), np.array(one.ids), strict=True):
        lost = np.flatnonzero(noisy == model.args.mask_token_id)
        assert lost.min() >= sequence.prompt
        logits = np.array(model.logits(model.hidden(mx.array(noisy)[None])))[0].astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected -= logs[lost, sequence.ids[lost]].sum() / time / (len(noisy) - sequence.prompt)
    assert objective.loss(model, one, cross_entropy)[0].item() == pytest.approx(expected / 2, rel=1e-4)


def test_every_row_is_seen_once_an_epoch(llada: Path) -> None:
    config = DistillConfig(batch_size=2, grad_accumulation_steps=3)
    order = Order(9, config)
    seen = [row for step in range(3) for micro in range(3) for row in order.batch(step, micro)]
    assert sorted(seen[:9]) == sorted(seen[9:]) == list(range(9))
    assert seen[:9] != seen[9:]
    assert order.epoch(3) == 2.0


def test_batches_as_long_as_dream_trains_with(dream: Path) -> None:
    model, _ = load(dream)
    config = DistillConfig(max_length=60, response_length=20)
    ranks = np.arange(50, dtype=np.int32)
    examples = [Example(np.arange(p + n, dtype=np.int32), p, "x", ranks) for p, n in ((5, 10), (12, 30))]
    short, long = pad(examples, config, model, 256)
    assert len(short.ids) == len(long.ids) == 32
    assert (short.full, long.full) == (15, 32)
    assert short.ids[15:].tolist() == [256] * 17
    assert short.order is not None and long.order is not None
    assert short.order[4:8].tolist() == [-1, 0, 1, 2]
    assert hide(short, 5, 10, np.ones(5, np.bool_), 9).lost.sum() == 5


def line(**row: Any) -> str:
    return json.dumps(row) + "\n"


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("", "holds no rows"),
        ("{\n", "row 1: not valid JSON"),
        ("[" * 200_000 + "\n", "row 1: the row is nested"),
        (r'{"prompt": "\ud800", "completion": "y"}' + "\n", "row 1: .* surrogate"),
        (line(prompt="x", completion="y") + "{}\n", "row 2: the row is empty"),
        (line(prompt="x"), "row 1: the row has no completion"),
        (line(prompt="x", completion=" "), "row 1: the row has no completion"),
        (line(prompt="x" * 90, completion="y"), "row 1: the prompt .* leaves no room"),
        (line(prompt="x", completion="a<|mdm_mask|>"), "row 1: the mask token"),
        (line(messages=[{"role": "user", "content": "x"}]), "row 1: the messages must end with the assistant"),
    ],
)
def test_bad_rows_stop_with_one_sentence(tmp_path: Path, llada: Path, text: str, culprit: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=culprit) as caught:
        distill(config_for(llada, path, tmp_path / "a"), quiet)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_trajectories_of_another_tokenizer_are_refused(tmp_path: Path, dream: Path, recorded: Path) -> None:
    with pytest.raises(DataError, match="another tokenizer"):
        distill(config_for(dream, recorded, tmp_path / "a"), quiet)
    with pytest.raises(DataError, match="no data at"):
        distill(config_for(dream, tmp_path / "none", tmp_path / "a"), quiet)
    with pytest.raises(ConfigError, match="holds no verdicts"):
        distill(config_for(recorded_model(recorded), recorded, tmp_path / "a", only_correct=True), quiet)


def recorded_model(recorded: Path) -> Path:
    """A model with the tokenizer that the trajectories were recorded with."""
    return write_llada(recorded.parent / "student")


def test_a_loss_that_is_no_number_names_its_rows(tmp_path: Path, llada: Path, data: Path) -> None:
    config = config_for(llada, data, tmp_path / "a", iters=6, learning_rate=1e30, clip=1e30)
    with pytest.raises(DataError, match=r"not a number in step \d.*train.jsonl, row \d"):
        distill(config, quiet)
    finite = (
        arrays(tmp_path / "a" / "checkpoint.safetensors")
        if (tmp_path / "a" / "checkpoint.safetensors").exists()
        else {}
    )
    assert all(np.isfinite(value).all() for value in finite.values())


def test_resuming_with_other_parameters_is_refused(tmp_path: Path, llada: Path, data: Path) -> None:
    config = config_for(llada, data, tmp_path / "a", iters=4)
    distill(config, quiet, stop_after=1)
    mx.save_safetensors(str(tmp_path / "a" / "checkpoint.safetensors"), {"weights/x": mx.ones(2)}, {"step": "1"})
    with pytest.raises(CheckpointError, match="other trainable parameters"):
        distill(config, quiet, resume=True)


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
    for wrong, culprit in [
        ({"rank": 0}, "rank must be at least 1"),
        ({"scale": float("nan")}, "scale must be at least 0 and finite"),
        ({"learning_rate": float("inf")}, "learning-rate must be"),
        ({"preset": ["llada"]}, "preset must be one of"),
        ({"objective": "sft", "block_sizes": "16"}, "block-sizes has no use with objective sft"),
        ({"objective": "sft", "random_masks": True}, "random-masks has no use with objective sft"),
        ({"selection": "segment", "random_masks": True}, "selection has no use with random-masks"),
        ({"fine_tune_type": "full", "rank": 4}, "rank has no use with fine-tune-type full"),
        ({"max_mask_ratio": 1.5}, "max-mask-ratio must be between"),
        ({"objective": "magic"}, "objective must be one of"),
        ({"targets": "q_proj,head"}, "not head"),
        ({"targets": []}, "not nothing"),
        ({"block_sizes": "16,0"}, "block-sizes"),
        ({"block_sizes": "16,x"}, "no use for"),
        ({"rank": 2.5}, "no use for"),
        ({"min_mask_ratio": 0.9}, "must not be above"),
        ({"dropout": 0.1, "grad_checkpoint": True}, "do not go together"),
        ({"preset": "gpt"}, "preset must be one of"),
    ]:
        with pytest.raises(ConfigError, match=culprit):
            build_config({}, wrong)
    (tmp_path / "bad.yaml").write_text("rnak: 3\n")
    with pytest.raises(ConfigError, match="no setting 'rnak'"):
        read_config(tmp_path / "bad.yaml")
    (tmp_path / "worse.toml").write_text("= 3\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "worse.toml")


@pytest.mark.parametrize("grad_checkpoint", [False, True])
def test_the_estimate_is_near_the_memory_that_training_takes(
    tmp_path: Path, data: Path, grad_checkpoint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_llada(tmp_path / "model", n_layers=8, mlp_hidden_size=384)
    changes = {"batch_size": 4, "grad_accumulation_steps": 1, "max_length": 64, "grad_checkpoint": grad_checkpoint}
    config = config_for(folder, data, tmp_path / "a", iters=1, **changes)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    distill(config, quiet)
    taken = mx.get_peak_memory() - before
    expected = estimate(open_checkpoint(folder), config)
    assert 0.6 < expected.total / taken < 1.6, (expected, taken)
    monkeypatch.setattr("d3mlx.distill.memory.memory_limit", lambda: expected.total - 1)
    with pytest.raises(MemoryLimitError, match="--force"):
        refuse_if_over_limit(expected, force=False)
    refuse_if_over_limit(expected, force=True)


def launch(*arguments: str) -> None:
    """Run d3mlx as two processes on this machine."""
    launcher = [str(COMMAND("mlx.launch")), "-n", "2", "--backend", "ring", "--", str(COMMAND("d3mlx"))]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=240, env=environment)
    assert "Error" not in done.stderr + done.stdout, done.stderr + done.stdout
    assert done.returncode == 0, done.stderr


def test_two_processes_train_like_one_and_share_the_prompts(tmp_path: Path, llada: Path, recorded: Path) -> None:
    one = config_for(llada, recorded, tmp_path / "one", iters=3)
    distill(one, quiet)
    names = ("rank", "batch_size", "grad_accumulation_steps", "max_length", "learning_rate", "save_every", "log_every")
    options = [part for name in names for part in (f"--{name.replace('_', '-')}", str(SMALL[name]))]
    place = ["--model", str(llada), "--data", str(recorded), "--adapter-path", str(tmp_path / "two")]
    launch("distill", *place, "--iters", "3", *options)
    ours, theirs = (arrays(tmp_path / name / "adapters.safetensors") for name in ("two", "one"))
    assert all(np.abs(ours[name] - theirs[name]).max() < 2e-5 for name in theirs)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("two", "one")]
    for mine, single in zip(*logs, strict=True):
        for name in ("loss", "ce", "ce_rev", "entropy", "entropy_rev", "norm"):
            assert json.loads(mine)[name] == pytest.approx(json.loads(single)[name], rel=1e-4, abs=1e-5)

    prompts = recorded.with_name("prompts.jsonl")
    out = tmp_path / "shared"
    launch(
        "trajectories", str(out), "--model", str(llada), "--data", str(prompts), "--max-tokens", "40", "--shard", "2"
    )
    from d3mlx.distill.store import read_store

    alone, shared = ({t.row: t for t in read_store(folder)} for folder in (recorded, out))
    assert alone.keys() == shared.keys()
    assert all(np.array_equal(alone[row].ranks, shared[row].ranks) for row in alone)
    assert all(np.array_equal(alone[row].tokens, shared[row].tokens) for row in alone)
    assert len(list(out.glob("rows-*.safetensors"))) == 4


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_refused_run_leaves_the_folder_as_it_was(tmp_path: Path, llada: Path, dream: Path, data: Path) -> None:
    sft = {"objective": "sft", "iters": 4}
    config = config_for(llada, data, tmp_path / "a", **sft)
    distill(config, quiet, stop_after=1)
    other = tmp_path / "other.jsonl"
    other.write_text(data.read_text().replace("six", "ten"))
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(data.read_bytes())
    changed = write_llada(tmp_path / "changed")
    weights = arrays(changed / "model.safetensors")
    mx.save_safetensors(
        str(changed / "model.safetensors"), {name: mx.array(value) * 1.5 for name, value in weights.items()}
    )
    before = contents(tmp_path / "a")
    for wrong, culprit in [
        (replace(config, data=str(other)), "another data"),
        (replace(config, model=str(changed)), "another model"),
        (replace(config, model=str(dream)), "another model|other trainable"),
        (replace(config, num_layers=1), "num-layers"),
    ]:
        with pytest.raises((ConfigError, CheckpointError), match=culprit):
            distill(wrong, quiet, resume=True)
        assert contents(tmp_path / "a") == before
    for name, content in [("distill.json", b"{"), ("distill.json", b"[]"), ("checkpoint.safetensors", b"")]:
        (tmp_path / "a" / name).write_bytes(content)
        with pytest.raises((ConfigError, CheckpointError), match=rf"{name} is .*damaged"):
            distill(config, quiet, resume=True)
        (tmp_path / "a" / name).write_bytes(before[name])
    (tmp_path / "a" / "checkpoint.safetensors").write_bytes(before["checkpoint.safetensors"][:-9])
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is damaged"):
        distill(config, quiet, resume=True)
    (tmp_path / "a" / "checkpoint.safetensors").write_bytes(before["checkpoint.safetensors"])
    with locked(tmp_path / "a"), pytest.raises(ConfigError, match="Another run is writing"):
        distill(config, quiet, resume=True)
    assert contents(tmp_path / "a") == before
    assert distill(replace(config, data=str(moved)), quiet, resume=True) == 3
    assert distill(config, quiet, resume=True) == 0


def test_other_folders_are_not_written_to(tmp_path: Path, llada: Path, data: Path) -> None:
    model = write_llada(tmp_path / "model")
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "adapters.safetensors").write_bytes(b"theirs")
    for folder, culprit in ((model, "other files"), (adapters, "other files"), (data, "is a file")):
        before = contents(folder) if folder.is_dir() else folder.read_bytes()
        with pytest.raises(ConfigError, match=culprit):
            distill(config_for(llada, data, folder, objective="sft"), quiet)
        assert (contents(folder) if folder.is_dir() else folder.read_bytes()) == before


def test_a_full_disk_is_one_sentence(tmp_path: Path, llada: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, *_: Any, **__: Any) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("[write] Unable to write 10 bytes to file.")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(ConfigError, match=r"adapters\.safetensors cannot be written: .*; make room"):
        distill(config_for(llada, data, tmp_path / "a", objective="sft", iters=1), quiet)
    assert not any("partial" in path.name for path in (tmp_path / "a").iterdir())


def test_data_must_hold_what_the_objective_needs(tmp_path: Path, llada: Path, data: Path) -> None:
    for changes, culprit in [
        ({"objective": "d3llm"}, "use --objective sft"),
        ({"objective": "sft", "only_correct": True}, "leave --only-correct out"),
    ]:
        with pytest.raises(ConfigError, match=culprit):
            distill(config_for(llada, data, tmp_path / "a", **changes), quiet)
    assert not (tmp_path / "a").exists()


def test_adapters_of_another_model_say_whose_they_are(tmp_path: Path, llada: Path, dream: Path, data: Path) -> None:
    distill(config_for(llada, data, tmp_path / "a", objective="sft", iters=1), quiet)
    path = tmp_path / "a" / "adapters.safetensors"
    wrong = {name: mx.zeros((3, 3)) for name in arrays(path)}
    mx.save_safetensors(str(path), wrong)
    with pytest.raises(CheckpointError) as caught:
        load(llada, adapter_path=tmp_path / "a")
    text = str(caught.value)
    assert f"and {len(wrong) - 1} tensors more; they were trained for {llada}." in text
    assert text.count("model.layers") == 1
