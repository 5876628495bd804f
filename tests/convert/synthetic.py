"""A checkpoint of any size with random weights, and the memory for its conversion.

    python -m tests.convert.synthetic FOLDER --layers 12 --width 2048 --vocab 32768
    python -m tests.convert.synthetic FOLDER --shape sdar-4b --shard 1GB

Tensors are drawn and written one output file at a time, so memory never contains the complete checkpoint.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import mlx.core as mx
import typer
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from d3mlx.bench.shapes import SHAPES
from d3mlx.models import get_model_classes
from tests.builders import LLADA_CONFIG, LLADA_SPECIAL, byte_tokenizer, write_json

RUN = "run-d3mlx"
"""First argument of the measured process."""

LLADA_8B = {"layers": 32, "width": 4096, "vocab": 126464}


def config_of(layers: int, width: int, vocab: int) -> dict[str, Any]:
    """Return a config.json with LLaDA-8B's proportions."""
    sizes = {"d_model": width, "mlp_hidden_size": 3 * width, "n_layers": layers, "n_heads": 32, "n_kv_heads": 32}
    rows = {"embedding_size": vocab, "vocab_size": vocab}
    return {**LLADA_CONFIG, **sizes, **rows, "torch_dtype": "bfloat16"}


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the original names and the shapes of all weights."""
    if config["model_type"] != "llada":
        kind, args = get_model_classes(config)
        parameters = kind(args.from_dict(config)).parameters()  # type: ignore[attr-defined]
        return {name: tuple(value.shape) for name, value in tree_flatten(parameters)}
    width, ff, rows = config["d_model"], config["mlp_hidden_size"], config["embedding_size"]
    square = ("q_proj", "k_proj", "v_proj", "attn_out")
    shapes: dict[str, tuple[int, ...]] = {"wte": (rows, width), "ff_out": (rows, width), "ln_f": (width,)}
    for i in range(config["n_layers"]):
        shapes |= {f"blocks.{i}.{name}": (width, width) for name in square}
        shapes |= {f"blocks.{i}.{name}": (ff, width) for name in ("ff_proj", "up_proj")}
        shapes |= {f"blocks.{i}.{name}": (width,) for name in ("attn_norm", "ff_norm")}
        shapes[f"blocks.{i}.ff_out"] = (width, ff)
    return {f"model.transformer.{name}.weight": shape for name, shape in shapes.items()}


def write_synthetic(folder: Path, config: dict[str, Any], shard_bytes: int) -> int:
    """Write the checkpoint in bfloat16. Return the bytes of its largest tensor."""
    folder.mkdir(parents=True)
    shapes = shapes_of(config)
    files: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        nbytes = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        if files[-1] and size + nbytes > shard_bytes:
            files.append([])
            size = 0
        files[-1].append(name)
        size += nbytes
    weight_map = {}
    before = mx.set_cache_limit(0)
    for i, names in enumerate(files):
        file = f"model-{i + 1:05d}-of-{len(files):05d}.safetensors"
        arrays = {}
        for name in names:
            # A normal draw of eight billion weights takes minutes. A uniform draw is faster and sufficient.
            values = mx.random.uniform(-0.05, 0.05, shapes[name], dtype=mx.bfloat16)
            arrays[name] = values if len(shapes[name]) > 1 else mx.ones(shapes[name], mx.bfloat16)
            mx.eval(arrays[name])
        mx.save_safetensors(str(folder / file), arrays, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    mx.set_cache_limit(before)
    write_json(folder / "config.json", config)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    byte_tokenizer(LLADA_SPECIAL).save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    return max(2 * shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes.values())


def peak_of(*arguments: str) -> int:
    """Return the peak resident bytes of a `d3mlx` command in a separate process."""
    command = [sys.executable, "-m", "tests.convert.synthetic", RUN, *arguments]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"d3mlx {' '.join(arguments)} failed: {done.stderr}")
    return int(done.stderr.rsplit(maxsplit=1)[-1])


def own_peak() -> int:
    """Return the peak resident bytes of this process. Linux's getrusage would include memory of its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_of_convert(source: Path, target: Path, *arguments: str) -> int:
    """Return the peak resident bytes of a conversion."""
    return peak_of("convert", "--hf-path", str(source), "--mlx-path", str(target), *arguments)


def measure(
    folder: Annotated[Path, typer.Argument(help="Temporary folder. It must not exist, and is removed.")],
    layers: Annotated[int, typer.Option(help="Number of layers.")] = 12,
    width: Annotated[int, typer.Option(help="Hidden width. The MLP is three times wider.")] = 2048,
    vocab: Annotated[int, typer.Option(help="Rows of embedding and head.")] = 65536,
    shard: Annotated[str, typer.Option(help="Largest output file.")] = "256MB",
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Use the shapes of LLaDA-8B. Needs 16 GB on disk.")
    ] = False,
    shape: Annotated[
        str | None, typer.Option(help="Use a shape of `d3mlx bench`, for example sdar-4b, which needs 9 GB on disk.")
    ] = None,
) -> None:
    """Write a checkpoint, convert it with and without quantization, and print peak resident sizes."""
    config = config_of(**LLADA_8B) if full_size else config_of(layers, width, vocab)
    if shape is not None:
        config = SHAPES[shape].config() | {"torch_dtype": "bfloat16"}
    source, large = folder / "source", full_size or shape is not None
    largest = write_synthetic(source, config, 4 * 10**9 if large else 5 * 10**8)
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    idle = peak_of("info", str(source), "--json")
    typer.echo(f"checkpoint {size / 1e6:.0f} MB, largest tensor {largest / 1e6:.0f} MB, files of at most {shard}")
    typer.echo(f"peak of `d3mlx info`, which reads no weight: {idle / 1e6:.0f} MB")
    runs = {"-q": ["-q"], "-q --q-mode mxfp4": ["-q", "--q-mode", "mxfp4"], "--dtype float16": ["--dtype", "float16"]}
    if large:
        eight = {"-q --q-bits 8": ["-q", "--q-bits", "8"]} if shape is not None else {}
        runs = {name: options for name, options in runs.items() if name == "-q" or shape is not None} | eight
        runs.pop("--dtype float16", None)
    for name, options in runs.items():
        began = time.perf_counter()
        peak = peak_of_convert(source, folder / "target", *options, "--max-shard-size", shard)
        seconds = time.perf_counter() - began
        index = json.loads((folder / "target" / "model.safetensors.index.json").read_text())["metadata"]
        bits = index["total_size"] * 8 / index["total_parameters"]
        typer.echo(
            f"convert {name}: {seconds:.0f} s, peak {peak / 1e6:.0f} MB, {(peak - idle) / 1e6:.0f} MB above idle; "
            f"{index['total_size'] / 1e6:.0f} MB written, {bits:.3f} bits per weight"
        )
        if large:
            info = peak_of("info", str(folder / "target"))
            typer.echo(f"d3mlx info of the result: peak {info / 1e6:.0f} MB")
            forward(folder / "target")
        shutil.rmtree(folder / "target")
    shutil.rmtree(folder)


def forward(folder: Path) -> None:
    """Run one forward of a converted model, loaded by mlx-lm, to check that it works."""
    began = time.perf_counter()
    loaded_model, _ = load_model(folder, get_model_classes=get_model_classes)
    model: Any = loaded_model
    loaded = time.perf_counter() - began
    logits = model(mx.array([[1, 2, 3, 4]]))
    mx.eval(logits)
    finite = bool(mx.isfinite(logits).all())
    typer.echo(
        f"loaded in {loaded:.0f} s, one forward of 4 rows in {time.perf_counter() - began - loaded:.0f} s: "
        f"logits {logits.shape} {logits.dtype}, finite: {finite}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == [RUN]:
        from d3mlx.cli.main import run

        sys.argv = ["d3mlx", *sys.argv[2:]]
        try:
            run()
        finally:
            sys.stderr.write(f"{own_peak()}\n")
    else:
        typer.run(measure)
