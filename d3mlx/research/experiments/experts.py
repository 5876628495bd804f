"""Measure the conversion of a mixture of experts with the layer shapes of LLaDA2-mini.

python -m d3mlx.research.experiments.experts [--layers 4] [--folder FOLDER]

The checkpoint has random weights in bfloat16, under the names of the published one, in files of one layer each. It is
converted to 4 bits, and mlx-lm's loader opens the result.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import mlx.core as mx
import typer
from mlx_lm.utils import load_model
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from d3mlx.bench.shapes import SHAPES
from d3mlx.convert import convert
from d3mlx.convert.recipe import Quantization, Recipe
from d3mlx.models import get_model_classes, llada2_moe
from d3mlx.research.script import script

SHAPE = SHAPES["llada2-mini"]


def config(layers: int) -> dict[str, Any]:
    """Return the config.json of LLaDA2-mini with fewer layers."""
    ids = {"mask_token_id": 156895, "eos_token_id": 156892, "pad_token_id": 156892}
    return {**SHAPE.config(), **ids, "num_hidden_layers": layers, "torch_dtype": "bfloat16"}


def random_arrays(shapes: dict[str, tuple[int, ...]]) -> dict[str, mx.array]:
    return {name: (mx.random.normal(shape) * 0.02).astype(mx.bfloat16) for name, shape in shapes.items()}


def layer_shapes(args: Any, layer: int) -> dict[str, tuple[int, ...]]:
    """Return the published names and the shapes of a layer."""
    shape, path = args.shape(), f"model.layers.{layer}"
    hidden = shape.hidden
    shapes: dict[str, tuple[int, ...]] = {
        f"{path}.input_layernorm.weight": (hidden,),
        f"{path}.post_attention_layernorm.weight": (hidden,),
        f"{path}.attention.query_layernorm.weight": (shape.head_dim,),
        f"{path}.attention.key_layernorm.weight": (shape.head_dim,),
        f"{path}.attention.query_key_value.weight": (shape.query_width + 2 * shape.kv_width, hidden),
        f"{path}.attention.dense.weight": (hidden, shape.query_width),
    }
    mlps = {f"{path}.mlp": shape.ff}
    if layer >= shape.experts.dense:
        shapes[f"{path}.mlp.gate.weight"] = (shape.experts.count, hidden)
        shapes[f"{path}.mlp.gate.expert_bias"] = (shape.experts.count,)
        mlps = {f"{path}.mlp.experts.{i}": shape.experts.width for i in range(shape.experts.count)}
        mlps[f"{path}.mlp.shared_experts"] = shape.experts.shared
    for name, width in mlps.items():
        shapes |= {f"{name}.{part}_proj.weight": (width, hidden) for part in ("gate", "up")}
        shapes[f"{name}.down_proj.weight"] = (hidden, width)
    return shapes


def write_checkpoint(folder: Path, layers: int) -> None:
    """Write the checkpoint, one file per layer, with a tokenizer that knows only the special tokens."""
    folder.mkdir()
    fields = config(layers)
    args = llada2_moe.ModelArgs.from_dict(fields)
    (folder / "config.json").write_text(json.dumps(fields))
    outside: dict[str, tuple[int, ...]] = {"model.word_embeddings.weight": (args.vocab_size, args.hidden_size)}
    outside |= {"lm_head.weight": (args.vocab_size, args.hidden_size), "model.norm.weight": (args.hidden_size,)}
    files: list[dict[str, tuple[int, ...]]] = [outside, *(layer_shapes(args, i) for i in range(layers))]
    weight_map: dict[str, str] = {}
    for i, shapes in enumerate(files, 1):
        name = f"model-{i:05d}-of-{len(files):05d}.safetensors"
        mx.save_safetensors(str(folder / name), random_arrays(shapes), metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shapes, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<|endoftext|>": 0, "<|role_end|>": 1}, "<|endoftext|>")),
        eos_token="<|endoftext|>",
    )
    tokenizer.save_pretrained(folder)


def measure(
    layers: Annotated[int, typer.Option(min=2, help="Layers of the model.")] = 4,
    folder: Annotated[
        Path | None, typer.Option(help="Existing folder for the files.", show_default="temporary")
    ] = None,
) -> None:
    """Convert the checkpoint to 4 bits, and print memory, time and bits per weight."""
    with TemporaryDirectory(dir=folder) as parent:
        source, target = Path(parent) / "LLaDA2.0-mini", Path(parent) / "converted"
        write_checkpoint(source, layers)
        stored = sum(path.stat().st_size for path in source.glob("*.safetensors"))
        mx.clear_cache()
        mx.reset_peak_memory()
        began = time.perf_counter()
        summary = convert(source, target, Recipe(Quantization(bits=4)), max_shard_bytes=1_000_000_000)
        seconds, peak = time.perf_counter() - began, mx.get_peak_memory()
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        model, _ = load_model(target, lazy=True, get_model_classes=get_model_classes)
        experts = model.layers[-1].mlp.switch_mlp.up_proj
        stacked = SHAPE.hidden * model.args.moe_intermediate_size * model.args.num_experts * 2
    typer.echo(f"{layers} layers, {stored / 1e9:.2f} GB in bfloat16; experts of one projection {stacked / 1e9:.2f} GB")
    typer.echo(f"converted to {summary.nbytes / 1e9:.2f} GB in {summary.files} files, {seconds:.0f} s")
    typer.echo(f"{summary.bits_per_weight:.3f} bits per weight; experts {experts.bits} bits, {experts.weight.shape}")
    typer.echo(f"peak memory of MLX {peak / 1e9:.2f} GB, of the process {resident / 1e9:.2f} GB")


if __name__ == "__main__":
    script(measure)
