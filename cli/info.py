"""`d3mlx info`: describe a checkpoint without loading its weights."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any

import mlx.core as mx
import typer
from rich.table import Table
from rich.text import Text

from d3mlx.cache import bytes_per_position
from d3mlx.checkpoints.checkpoint import Checkpoint, architecture_of, open_checkpoint
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.checkpoints.tokenizer import configured_end_ids, load_tokenizer
from d3mlx.cli.common import MODEL_HELP, Revision, human_size, recommended_for
from d3mlx.cli.render.consumers import json_text
from d3mlx.cli.render.printer import Screen
from d3mlx.errors import CheckpointError, ConfigError
from d3mlx.models import traits_of
from d3mlx.models.experts import Experts
from d3mlx.quantization import bits_of
from d3mlx.terminal import write_json

LENGTH = 4096
"""Number of positions for which the memory of a model with its KV cache is shown."""


def describe(checkpoint: Checkpoint, name: str = "", length: int = LENGTH) -> dict[str, Any]:
    """Return facts about a checkpoint, with sizes in bytes.

    name: the name that the user gave. length: number of positions for the memory with a KV cache.
    """
    card = recommended_for(name, checkpoint)
    args, shape = checkpoint.args, checkpoint.args.shape()
    try:
        tokenizer = load_tokenizer(checkpoint)
    except CheckpointError:
        # Describe the weights anyway. `load` reports what is wrong with the tokenizer.
        tokenizer = None
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    loaded = checkpoint.bytes_to_load(in_float32=on_cpu)
    position = bytes_per_position(shape, checkpoint.bytes_of_float(in_float32=on_cpu), keep=True)
    return {
        "folder": str(checkpoint.folder),
        "family": checkpoint.family,
        "architecture": architecture_of(checkpoint.config),
        "parameters": checkpoint.parameters,
        "bits_per_weight": round(checkpoint.bits_per_weight, 6),
        "quantization": checkpoint.quantization,
        "size_on_disk": checkpoint.nbytes,
        "memory_to_load": loaded,
        "attention": traits_of(checkpoint.family).attention,
        "block_size": getattr(args, "block_size", None),
        "bytes_per_position": position,
        "length": min(length, args.context),
        "memory_with_cache": loaded + min(length, args.context) * position,
        "context": args.context,
        "layers": shape.layers,
        "hidden": shape.hidden,
        "feed_forward": shape.ff,
        "experts": asdict(shape.experts) if shape.experts else None,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "vocabulary": args.logit_width,
        "mask_id": args.mask_token_id,
        "end_ids": sorted(tokenizer.eos_token_ids) if tokenizer else configured_end_ids(checkpoint, None),
        "pad_id": args.pad_token_id,
        "recommended": None if card is None else {k: v for k, v in asdict(card).items() if v and k != "names"},
        "tokenizer": tokenizer is not None,
        "chat_template": tokenizer is not None and tokenizer.chat_template is not None,
    }


def labeled_facts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts as pairs of a label and a text."""

    quantization = facts["quantization"]
    precision = f"{facts['bits_per_weight']:.2f} bits per weight"
    if quantization:
        precision += f", {quantization.get('mode', 'affine')} {' and '.join(map(str, bits_of(quantization)))} bit"
        precision += f", groups of {quantization['group_size']}"
    heads = f"{facts['heads']} heads, {facts['kv_heads']} KV heads"
    return [
        ("Folder", facts["folder"]),
        ("Family", f"{facts['family']} ({facts['architecture']})"),
        ("Parameters", f"{facts['parameters']:,}"),
        ("Weights", precision),
        ("Size on disk", human_size(facts["size_on_disk"])),
        ("Memory to load here", human_size(facts["memory_to_load"])),
        ("KV cache", cache_text(facts)),
        ("Attention", attention_text(facts)),
        ("Context", f"{facts['context']} tokens"),
        ("Layers", f"{facts['layers']}, hidden size {facts['hidden']}, feed-forward {facts['feed_forward']}, {heads}"),
        *([("Experts", experts_text(facts["experts"]))] if facts["experts"] else []),
        ("Vocabulary", f"{facts['vocabulary']:,}"),
        ("Mask token", str(facts["mask_id"])),
        ("End tokens", ", ".join(map(str, facts["end_ids"]))),
        ("Padding token", str(facts["pad_id"])),
        ("Recommended", recommended_text(facts["recommended"])),
        ("Tokenizer", "yes" if facts["tokenizer"] else "cannot be loaded"),
        ("Chat template", "yes" if facts["chat_template"] else "no; use --raw"),
    ]


def experts_text(sizes: dict[str, Any]) -> str:
    """Return the sizes of a mixture of experts as text, with the expected number that a forward reads."""
    experts = Experts(**sizes)
    read = ", ".join(f"{experts.distinct(rows):.0f} for {rows} rows" for rows in (8, 32))
    sizes_text = f"{experts.count} per layer, feed-forward {experts.width}, {experts.chosen} per row"
    return f"{sizes_text}; a forward reads about {read}"


def cache_text(facts: dict[str, Any]) -> str:
    """Return the memory of the KV cache as text."""
    each, total = human_size(facts["bytes_per_position"]), human_size(facts["memory_with_cache"])
    return f"{each} per position; with the weights {total} at {facts['length']} positions"


def attention_text(facts: dict[str, Any]) -> str:
    """Return the kind of attention as text, with the block size if there is one."""
    size = facts["block_size"]
    return str(facts["attention"]) + (f", blocks of {size} tokens" if size else "")


def recommended_text(card: dict[str, Any] | None) -> str:
    """Return the settings of the model card as the flags that --recommended stands for."""
    if card is None:
        return "unknown"
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in card.items() if name != "options"]
    for decoder, options in card.get("options", {}).items():
        flags += [f"--decoder {decoder}", *(f"--{name.replace('_', '-')} {value}" for name, value in options.items())]
    return f"{' '.join(flags)} (--recommended)"


def info(
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP, show_default="embedded")] = None,
    revision: Revision = None,
    length: Annotated[
        int | None,
        typer.Option(help="Number of positions for the memory with a KV cache.", min=1, show_default=str(LENGTH)),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Describe a checkpoint without loading its weights.

    Shows size, memory, attention, context and special tokens. For a Hugging Face id, the weights are not downloaded.

    Example: d3mlx info GSAI-ML/LLaDA-8B-Instruct
    """
    name = EMBEDDED if model is None else model
    checkpoint = open_checkpoint(fetch(name, revision))
    if length is not None and length > checkpoint.args.context:
        raise ConfigError(f"Invalid --length {length}. The maximum of this model is {checkpoint.args.context}.")
    facts = describe(checkpoint, name, LENGTH if length is None else length)
    if as_json:
        write_json(sys.stdout, json_text(facts) + "\n")
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in labeled_facts(facts):
        table.add_row(name, Text(value, overflow="fold"))
    Screen().print(table)
