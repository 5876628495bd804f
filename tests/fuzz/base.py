"""The undamaged folders and files that the cases begin with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tests.builders import LLADA_SPECIAL, byte_tokenizer, write_dream, write_json, write_llada

WIDTH, RANK = 64, 2
PEFT = {"peft_type": "LORA", "r": RANK, "lora_alpha": 4, "bias": "none", "target_modules": ["q_proj"]}
MLX = {
    "fine_tune_type": "lora",
    "num_layers": 2,
    "lora_parameters": {"rank": RANK, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]},
}
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
ROWS: list[dict[str, Any]] = [
    {"prompt": "one and one", "completion": "two", "answer": "2"},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
    {"question": "Is it 3?", "answer": "Yes. #### 3", "completion": "3"},
    {"prompt": "é 你好", "completion": "ok"},
]


@dataclass(frozen=True)
class Base:
    """Folders and files of a session. store: recorded trajectories. runs: an evaluation. trained: a training run."""

    llada: Path
    dream: Path
    peft: Path
    adapters: Path
    rows: Path
    store: Path
    runs: Path
    trained: Path


def write_adapters(folder: Path, config: dict[str, Any], file: str, names: tuple[str, str]) -> Path:
    """Write the adapters of one projection of both layers, in the layout that the names belong to."""
    folder.mkdir()
    write_json(folder / "adapter_config.json", config)
    arrays, by_rows = {}, file.startswith("adapter_")
    for layer in range(2):
        for name, shape in zip(names, ((WIDTH, RANK), (RANK, WIDTH)), strict=True):
            arrays[name.format(layer)] = mx.ones(shape[::-1] if by_rows else shape) * 0.1
    mx.save_safetensors(str(folder / file), arrays, metadata={"format": "pt"})
    return folder


def write_store(folder: Path, tokenizer_hash: str) -> Path:
    """Write a folder of trajectories with a shard and a journal."""
    from d3mlx.distill.trajectories import Trajectory
    from d3mlx.distill.trajectory_store import SETTINGS, journal_line, write_shard

    folder.mkdir()
    write_json(folder / SETTINGS, {"tokenizer": tokenizer_hash, "mask_id": 258, "family": "llada"})
    rows = [
        Trajectory(i, np.arange(4, dtype=np.int32), np.arange(8, dtype=np.int32), np.arange(8, dtype=np.int16), True, 1)
        for i in range(3)
    ]
    write_shard(folder, rows[:2])
    (folder / "journal-0.jsonl").write_text(json.dumps(journal_line(rows[2])) + "\n")
    return folder


def write_runs(folder: Path) -> Path:
    """Write a folder of `d3mlx eval`."""
    folder.mkdir()
    write_json(folder / "config.json", {"task": "embedded", "model": "x", "data_fingerprint": None, "decoder": "d3llm"})
    record = {"index": 0, "correct": True, "strict": None, "answer": "1", "why": None, "seed": 0, "prompt_tokens": 4}
    record |= {"tokens": 8, "forwards": 4, "rows": 64, "prefill_rows": 4, "text": "1"}
    for name in ("threshold-0.1", "threshold-0.5"):
        lines = [json.dumps(record | {"index": i, "correct": i % 2 == 0}) for i in range(4)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


TRAINING = ["--batch-size", "1", "--grad-accumulation-steps", "1", "--max-length", "32", "--rank", "2"]
TRAINING += ["--block-sizes", "4", "--targets", "q_proj"]
"""Options of a small training."""


def write_trained(folder: Path, model: Path, store: Path) -> Path:
    """Write the folder of a training that was interrupted after its first step."""
    from d3mlx.distill.config import build_config
    from d3mlx.distill.run import distill
    from tests.distill.runs import quiet

    options = dict(zip(TRAINING[::2], TRAINING[1::2], strict=True))
    named = {name.removeprefix("--").replace("-", "_"): value for name, value in options.items()}
    paths = {"model": str(model), "data": str(store), "adapter_path": str(folder)}
    distill(build_config({}, paths | named | {"iters": 2}), quiet, stop_after=2)
    return folder


def write_base(folder: Path) -> Base:
    """Write all folders and files, and return them."""
    import hashlib

    pairs = sorted(byte_tokenizer(LLADA_SPECIAL).get_vocab().items())
    llada = write_llada(folder / "llada", shards=2)
    (llada / "chat_template.jinja").write_text(TEMPLATE)
    write_json(llada / "generation_config.json", {"eos_token_id": 257})
    layer = "base_model.model.model.transformer.blocks.{}.q_proj.lora_"
    own = "model.layers.{}.self_attn.q_proj.lora_"
    rows = folder / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    store = write_store(folder / "store", hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16])
    return Base(
        llada,
        write_dream(folder / "dream", merges=("h e",)),
        write_adapters(folder / "peft", PEFT, "adapter_model.safetensors", (f"{layer}A.weight", f"{layer}B.weight")),
        write_adapters(folder / "adapters", MLX, "adapters.safetensors", (f"{own}a", f"{own}b")),
        rows,
        store,
        write_runs(folder / "runs"),
        write_trained(folder / "trained", llada, store),
    )
