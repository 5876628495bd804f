"""`d3mlx convert`: a Hugging Face checkpoint becomes an MLX folder."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from d3mlx.cli.common import human_size
from d3mlx.cli.render.progress import Progress
from d3mlx.convert import Quantization, Recipe
from d3mlx.convert import convert as convert_checkpoint
from d3mlx.convert.card import check_login, upload
from d3mlx.errors import ConfigError

SOURCE, PRECISION, TARGET = "Source", "Precision", "Target"
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_size(text: str) -> int:
    """Bytes of a size such as 5GB or 256MB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]B)", text.strip(), re.IGNORECASE)
    number = float(match[1]) * UNITS[match[2].upper()] if match else 0.0
    if not 1 <= number < float("inf"):
        raise typer.BadParameter(f"{text!r} is no size; write it as 5GB or 256MB.")
    return int(number)


def convert(
    hf_path: Annotated[
        str,
        typer.Option(
            "--hf-path",
            "--model",
            help="Folder or hub id of the checkpoint.",
            show_default=False,
            rich_help_panel=SOURCE,
        ),
    ],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the hub.", rich_help_panel=SOURCE)
    ] = None,
    quantize: Annotated[
        bool, typer.Option("--quantize", "-q", help="Quantize the weights.", rich_help_panel=PRECISION)
    ] = False,
    q_bits: Annotated[
        int | None, typer.Option(help="Bits per weight, 4 unless given: 2, 3, 4, 5, 6 or 8.", rich_help_panel=PRECISION)
    ] = None,
    q_group_size: Annotated[
        int | None,
        typer.Option(help="Weights that share a scale, 64 unless given: 32, 64 or 128.", rich_help_panel=PRECISION),
    ] = None,
    q_mode: Annotated[
        str | None,
        typer.Option(
            help="affine, mxfp4, nvfp4 or mxfp8; the last three fix bits and groups.", rich_help_panel=PRECISION
        ),
    ] = None,
    quant_predicate: Annotated[
        str | None,
        typer.Option(
            help="Recipe of mixed bits: mixed_2_6, mixed_3_4, mixed_3_6 or mixed_4_6.", rich_help_panel=PRECISION
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float16, bfloat16 or float32 for weights that stay in floats. What config.json says unless given.",
            rich_help_panel=PRECISION,
        ),
    ] = None,
    dequantize: Annotated[
        bool,
        typer.Option("--dequantize", "-d", help="Turn a quantized model back to floats.", rich_help_panel=PRECISION),
    ] = False,
    mlx_path: Annotated[
        str, typer.Option(help="Folder to write; it must not exist.", rich_help_panel=TARGET)
    ] = "mlx_model",
    max_shard_size: Annotated[
        str, typer.Option(help="Largest weight file. One file is held in memory.", rich_help_panel=TARGET)
    ] = "5GB",
    upload_repo: Annotated[
        str | None, typer.Option(help="Hub id to upload the result to.", rich_help_panel=TARGET)
    ] = None,
) -> None:
    """Convert a checkpoint to MLX, quantized or not, in little memory.

    Weights are streamed tensor by tensor, so a checkpoint may be larger than memory.

    Embedding and head are quantized like every layer; recipes give the head their higher bits.

    The folder appears when it is whole; an interrupted run leaves nothing.
    """

    limit = parse_size(max_shard_size)
    details = (q_bits, q_group_size, q_mode, quant_predicate)
    if not quantize and any(detail is not None for detail in details):
        raise ConfigError("Bits, groups, modes and recipes belong to a quantization; add --quantize.")
    quantization = (
        Quantization("affine" if q_mode is None else q_mode, q_bits, q_group_size, quant_predicate)
        if quantize
        else None
    )
    recipe = Recipe(quantization, dequantize, dtype)
    if upload_repo is not None:
        check_login(upload_repo)
    with Progress("Converting", in_bytes=True, late=True) as progress:
        summary = convert_checkpoint(
            hf_path,
            mlx_path,
            recipe,
            revision=revision,
            max_shard_bytes=limit,
            name=upload_repo,
            progress=progress.update,
        )
    files = "1 file" if summary.files == 1 else f"{summary.files} files"
    size = f"{human_size(summary.nbytes)} in {files}, {summary.bits_per_weight:.2f} bits per weight"
    sys.stdout.write(f"Wrote {summary.folder}: {size}.\n")
    if upload_repo is not None:
        sys.stdout.write(f"Uploaded to {upload(summary.folder, upload_repo)}\n")
